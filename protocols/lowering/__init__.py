"""Planning: from the mathematics that was written to the operations of a program."""
