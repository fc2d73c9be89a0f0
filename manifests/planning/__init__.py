"""Planning: from validated requests to samples, batches and shards, with their ids and fingerprint."""
