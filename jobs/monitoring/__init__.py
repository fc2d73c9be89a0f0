"""What people see of a run while it lasts: facts, their pace, and how a terminal and a log show them."""
