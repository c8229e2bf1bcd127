"""What the in-memory part of this folder is made of, importable by name: the driver, the cheats and the programs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

for _name in ("adversary", "strategies", "cases"):
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    _module = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
    sys.modules[_name] = _module
    _spec.loader.exec_module(_module)  # type: ignore[union-attr]
