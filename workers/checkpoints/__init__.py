"""Where a checkpoint lies, and how a node gets a whole copy of it."""
