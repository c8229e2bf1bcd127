"""``tessera init``: a cluster file, and keys, for several hosts; asks what is missing."""

from parties.commands.init.dialogue import add_arguments, run

__all__ = ["add_arguments", "run"]
