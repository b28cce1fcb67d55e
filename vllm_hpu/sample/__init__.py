"""How the next tokens of a step are sampled."""
