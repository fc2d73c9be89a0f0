"""One image made again from its record, in this process and without Ray, and held against the stored one."""
