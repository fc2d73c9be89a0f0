"""What a person starts: each module here is a script with `--help`, or a part of one."""
