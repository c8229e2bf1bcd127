"""What Tessera does and how fast: ``tessera demo`` and ``tessera bench``."""
