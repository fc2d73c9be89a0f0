"""The report page of an output: what came of a run, with a sample of its pictures, as one offline file."""
