"""Scores of an output that is finished: its images read again, scored on a device, and its shards sealed anew."""
