"""What a plan will take: measured step times, estimates, and the time of a device that follows."""
