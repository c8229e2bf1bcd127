"""The audit log: what a server did for whom, hash-chained and signed, so that it cannot be rewritten unseen."""
