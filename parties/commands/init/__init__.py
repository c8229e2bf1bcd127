"""``tessera init``: the cluster file, and the keys that go with it."""
