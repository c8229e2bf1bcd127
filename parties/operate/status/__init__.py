"""``tessera status``: what every server holds and does."""
