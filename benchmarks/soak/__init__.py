"""``tessera bench soak``: many predictions while servers and clients are killed, frozen, stopped and started again."""
