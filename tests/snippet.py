"""``python snippet.py CODE ARGUMENTS`` is ``python -c CODE ARGUMENTS``, and a fork of the nursery in tests."""

import sys

exec(sys.argv.pop(1))
