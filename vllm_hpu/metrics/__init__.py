"""What a running engine counts and publishes."""
