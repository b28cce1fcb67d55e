"""Which graphs are compiled when."""
