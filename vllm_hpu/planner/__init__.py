"""`vllm-hpu plan`: shapes, time and memory of an engine without a card."""
