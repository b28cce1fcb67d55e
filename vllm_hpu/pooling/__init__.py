"""How pooling requests (embeddings, scores, classes) get their results, in planned shapes."""
