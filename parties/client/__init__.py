"""A client: shares secrets, stores models, has the parties compute, and learns the result alone."""
