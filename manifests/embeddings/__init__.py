"""The embedding store: the prior's answers under their keys, in plain Parquet files."""
