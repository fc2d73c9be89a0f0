"""One run: its lease, its files, its signals, its progress and its outcome."""
