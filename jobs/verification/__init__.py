"""Proving that an output is whole and undamaged: each shard's index and tar, then the output as a whole."""
