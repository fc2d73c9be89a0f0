"""Kandinsky 2.1 for whole batches, on mindone's pipelines."""
