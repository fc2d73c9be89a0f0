"""What runs on the nodes: devices, CPU kernels, checkpoints, Kandinsky, and the stages of the line."""
