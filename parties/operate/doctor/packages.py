"""Which versions are installed of what Tessera is made of, and whether its tests have passed with them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator, Mapping

import zmq

from parties.operate.doctor.findings import Finding, Verdict

DISTRIBUTION = "tessera-mpc"
PYTHON = ((3, 11), (3, 13))
"""The oldest and the newest that tests run on."""
EXTRAS: Mapping[str, str] = {
    "torch": "networks of PyTorch",
    "onnx": "ONNX files",
    "clinic": "tessera clinic",
    "service": "--metrics of servers",
    "bench": "pictures, and emulated networks, of tessera bench",
    "completion": "tessera completion",
}
"""That users ask for, and what for."""
_REQUIRED = re.compile(r"([A-Za-z0-9._-]+)\s*([^;]*?)\s*(?:;.*extra\s*==\s*['\"](\w+)['\"].*)?\Z")
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([0-9.]+)")


def versions() -> Iterator[Finding]:
    """Python's, ours, and those of every package that is needed; of extras one line each."""
    yield _python()
    try:
        yield Finding("tessera", importlib.metadata.version(DISTRIBUTION))
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
        known = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        advice = "install it (pip install -e .): commands of other packages, and versions, are not known otherwise"
        yield Finding("tessera", "run from its sources, not installed", Verdict.SLOW, advice)
        return
    missing: dict[str, list[str]] = {}
    for line in requirements:
        matched = _REQUIRED.match(line)
        if matched is None:
            continue
        name, bounds, extra = matched.groups()
        if extra is not None and extra not in EXTRAS:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if extra is None:
                yield Finding(name, "not installed", Verdict.BAD, f"pip install '{name}{bounds}'")
            else:
                missing.setdefault(extra, []).append(name)
            continue
        if not within(version, bounds):
            advice = f"it was tested with {bounds}: pip install '{name}{bounds}'"
            yield Finding(name, f"{version}, which it was not tested with", Verdict.SLOW, advice)
        elif extra is None:
            yield Finding(name, version)
    for extra, purpose in EXTRAS.items():
        if extra not in known:
            continue
        found = f"not installed: {', '.join(missing[extra])}" if extra in missing else "installed"
        advice = f"for {purpose}: pip install '{DISTRIBUTION}[{extra}]'" if extra in missing else ""
        yield Finding(f"extra {extra}", found, advice=advice)


def _python() -> Finding:
    version = platform.python_version()
    oldest, newest = (".".join(map(str, end)) for end in PYTHON)
    if PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]:
        return Finding("Python", version)
    return Finding("Python", version, Verdict.SLOW, f"it was tested with {oldest} to {newest}")


def within(version: str, bounds: str) -> bool:
    """Whether a version is in a range such as ``>=1.2,<3``; of pre-releases and builds, the number counts."""
    number = _number(version)
    tests = {
        ">=": lambda end: number >= end,
        "<=": lambda end: number <= end,
        "==": lambda end: number[: len(end)] == end,
        "<": lambda end: number < end,
        ">": lambda end: number > end,
    }
    return all(tests[sign](_number(end)) for sign, end in _BOUND.findall(bounds))


def _number(version: str) -> tuple[int, ...]:
    matched = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, matched[0].split("."))) if matched else ()


def encrypted_links() -> Finding:
    """libzmq is built with CURVE, or there is no link at all."""
    version = zmq.zmq_version()
    if zmq.has("curve"):
        return Finding("libzmq", f"{version}, with CURVE")
    advice = "its links would not be encrypted: install pyzmq's own wheel (pip install --only-binary :all: pyzmq)"
    return Finding("libzmq", f"{version}, without CURVE", Verdict.BAD, advice)
