"""What an output is worth in numbers: its scores by bucket, and how far its images are from those of a reference."""
