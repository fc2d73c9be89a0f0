"""What lies at an output, read for people: numbers of its runs, rows by key, words or sample, images in their tars."""
