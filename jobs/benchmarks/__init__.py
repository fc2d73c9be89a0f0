"""One module per sub-command of `jobs/benchmark.py`."""
