"""Is the engine still at work? Signs of life, who watches them, and what follows if they end."""
