"""The device of a process, and the kernels that the CPU default needs."""
