"""Everything the plugin asks of Intel's PyTorch bridge; the only importer of it."""
