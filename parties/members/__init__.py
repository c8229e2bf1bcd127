"""Who takes part: the cluster file, how one follows another, and keys."""
