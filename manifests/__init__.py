"""Data at rest: request schema and validation, sources, plan, storage, commit records, errors."""
