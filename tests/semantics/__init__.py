"""Whether prompt, picture, mask, strength and weights can be seen in the demo checkpoint's images."""
