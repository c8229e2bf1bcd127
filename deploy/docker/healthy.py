"""Exit code 0 if this container's server listens, at ``$TESSERA_PORT`` (default: 7001, a party's)."""

import os
import socket
import sys

try:
    socket.create_connection(("127.0.0.1", int(os.environ.get("TESSERA_PORT", "7001"))), timeout=2).close()
except (OSError, ValueError) as error:
    sys.exit(f"not healthy: {error}")
