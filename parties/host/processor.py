"""What the system says of its processor, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cpu_info() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    first = lines[: lines.index("")] if "" in lines else lines
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}


def features_of(said: Mapping[str, str]) -> frozenset[str]:
    """Its instructions beyond the usual, by Linux's names for them, such as ``aes``."""
    return frozenset((said.get("flags") or said.get("Features") or "").split())


def name_of(said: Mapping[str, str]) -> str:
    """What it is called, or what kind it is."""
    return said.get("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
