"""One run: its lease, its files, its signals and its outcome."""
