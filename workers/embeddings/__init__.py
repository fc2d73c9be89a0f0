"""Embeddings on their way between the batches, the store and the manifest."""
