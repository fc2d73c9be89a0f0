"""What PyTorch diffusers makes of the golden manifest, and how the job is compared with it."""
