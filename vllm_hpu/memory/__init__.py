"""The memory of a card: predicted, measured, shared out, or refused."""
