"""Who works when: both pools side by side, or all devices on one stage after the other."""
