"""Proving that an output is whole and undamaged."""
