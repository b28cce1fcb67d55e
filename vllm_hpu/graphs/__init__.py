"""How a function of persistent tensors reaches the device in each execution mode."""
