"""``tessera cluster``: how members agree on another cluster file, and go on to it."""
