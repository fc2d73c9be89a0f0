"""Scores of images: CLIP's on the device that made them, the perceptual hash on the CPU, and their columns."""
