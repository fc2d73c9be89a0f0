"""The engine: the Ray cluster, the actor pools, and the pipeline that Ray Data runs."""
