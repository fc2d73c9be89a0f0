"""Requests: the schema of a manifest, its files, and its rows read, cast and validated."""
