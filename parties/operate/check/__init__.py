"""``tessera check``: is every link, key, version, clock and data folder as it should be?"""
