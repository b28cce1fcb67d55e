"""How a planned step reaches the device: execution modes and warm-up."""
