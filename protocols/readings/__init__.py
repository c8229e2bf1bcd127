"""The readings of a program: in the clear, the dealer's, a party's, and the check and the reveal that end a run."""
