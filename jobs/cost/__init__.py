"""What a plan will take: measured step times, estimates, and the split of the devices."""
