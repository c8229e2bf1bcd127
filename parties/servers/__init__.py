"""The processes that serve: the dealer's and the parties', what both are, and whose turn it is."""
