"""What keeps a run from starting or ends it early, so that no night is lost: too many failed rows, too small a disk."""
