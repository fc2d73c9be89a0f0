"""How images stand among the others of their output: near duplicates in groups, and places in group and request."""
