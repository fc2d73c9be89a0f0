"""The small world that the demo checkpoint knows: what a picture holds, how it is painted, told and recognised."""
