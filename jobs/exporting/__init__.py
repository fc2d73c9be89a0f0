"""Handing a dataset on: which rows of an output, in which order, and the layouts that other tools open."""
