"""Attention over vLLM's paged KV cache: shapes fixed by the graph key, everything else derived."""
