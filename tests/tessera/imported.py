"""Says whether somebody has imported for it."""

import sys

print("parties" in sys.modules)
