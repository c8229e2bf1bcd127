"""Web pages that a command serves on this computer: ``tessera clinic``, and ``tessera jobs --page``."""
