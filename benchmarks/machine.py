"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from parties.host.processor import cores, cpu_info, name_of
from parties.wire.version import package_version


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, how busy it all is, and versions of what the time is spent in."""
    return {
        "processor": name_of(cpu_info()),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tessera": package_version(),
    }
