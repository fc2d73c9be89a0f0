"""Who works on an output: leases, their files, and the fence that keeps a job without one from changing anything."""
