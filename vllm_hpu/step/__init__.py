"""How a scheduled step becomes device tensors and a forward."""
