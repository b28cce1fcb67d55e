"""Multi-LoRA with static shapes."""
