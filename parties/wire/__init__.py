"""Links between processes: keys checked, messages numbered and checked, peers watched.  `transport` is the way in."""
