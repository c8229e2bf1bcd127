"""Preprocessing ahead of time: dealt into ledgers, kept above a low-water mark, each item used exactly once."""
