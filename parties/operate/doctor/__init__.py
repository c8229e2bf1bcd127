"""What a computer has and lacks, before anything runs on it."""
