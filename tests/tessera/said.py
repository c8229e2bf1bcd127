"""Says what a program finds when it starts, and ends as it is told to: ``python said.py [signal NUMBER]``."""

import atexit
import json
import os
import signal
import sys
import threading
from pathlib import Path

print(
    json.dumps(
        {
            "name": __name__,
            "arguments": sys.argv,
            "first of the path": sys.path[0],
            "environment": sorted(f"{name}={value}" for name, value in os.environ.items() if name != "LC_CTYPE"),
            "folder": str(Path.cwd()),
            "said to it": sys.stdin.read(),
            "parent": os.getppid(),
            "group": os.getpgid(0),
            "threads": threading.active_count(),
            "heeded": [
                str(signal.getsignal(n)).partition(" at ")[0] for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
            ],
        }
    ),
    flush=True,
)
print("of errors", file=sys.stderr, flush=True)
atexit.register(print, "at its end", end="")
if sys.argv[1:2] == ["signal"]:
    os.kill(os.getpid(), int(sys.argv[2]))
sys.exit(7)
