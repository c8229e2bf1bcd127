"""From what was written to the operations of a program: fraction bits, truncations, masks, approximations."""
