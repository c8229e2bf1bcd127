"""What of the computer itself Tessera's speed and safety depend on."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import resource
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import protocols  # noqa: F401 - makes the operations known, whose kernels are warmed up
from mpc.rings import compiling
from parties.host.disk import RESERVE
from parties.host.memory import host_memory
from parties.host.processor import cores, cpu_info, features_of, name_of
from parties.operate.doctor.findings import Finding, Verdict
from parties.wire.door import DESCRIPTORS

LITTLE_MEMORY = 2 << 30
"""Bytes, of which a server with its stock takes most."""
COMPILES = 2.0
"""s beyond which kernels were compiled, and not loaded."""
_UNSYNCHRONISED = 5
"""What adjtimex(2) returns of a clock that nothing sets."""


def processor() -> Iterator[Finding]:
    """Cores, and what of its instructions matters."""
    said, count = cpu_info(), cores()
    yield Finding("processor", f"{name_of(said)}, {count} core{'s' * (count > 1)} for this process")
    flags = features_of(said)
    if not flags:
        yield Finding("AES", "not known: this system does not say", Verdict.SLOW)
    elif "aes" in flags:
        yield Finding("AES", "in hardware")
    else:
        advice = "shares are expanded by AES, slowly here: let the virtual machine see the host's processor"
        yield Finding("AES", "not in hardware", Verdict.SLOW, advice)
    wide = [flag for flag in ("avx512f", "avx2", "asimd") if flag in flags]
    if flags and not wide:
        yield Finding("vectors", "neither AVX2 nor NEON", Verdict.SLOW, "arithmetic is about three times as slow")
    elif wide:
        yield Finding("vectors", wide[0])


def memory() -> Finding:
    """In all that servers here could have."""
    size = host_memory()
    found = f"{size / (1 << 30):.1f} GiB"
    if size >= LITTLE_MEMORY:
        return Finding("memory", found)
    return Finding("memory", found, Verdict.SLOW, "set memory_mb in the cluster file to what runs may have of it")


def compiled() -> Finding:
    """Loads all kernels, or compiles them: some seconds the first time."""
    started = time.perf_counter()
    compiling.warm_up()
    seconds = time.perf_counter() - started
    if seconds < COMPILES:
        return Finding("kernels", f"compiled, and loaded in {seconds:.1f} s")
    advice = "the next start loads them; if it does not, set NUMBA_CACHE_DIR to a folder that this user alone can write"
    return Finding("kernels", f"compiled in {seconds:.1f} s", Verdict.SLOW, advice)


def descriptors() -> Finding:
    """How many files, and so connections, a server may have open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS:
        return Finding("open files", "as many as a server wants")
    advice = f"a server wants {DESCRIPTORS:,}: LimitNOFILE= in its unit, or `ulimit -Hn`; strangers could use up fewer"
    return Finding("open files", f"{hard:,} at most", Verdict.SLOW, advice)


def room(folder: Path) -> Finding:
    """On the disk where data folders would be."""
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GiB free"
    if free >= RESERVE:
        return Finding("disk", found)
    return Finding("disk", found, Verdict.SLOW, "models, stock and audit logs take some: make room")


def clock() -> Finding:
    """Whether something sets it.  No deadline depends on the time of day; logs, and rules per day, do."""
    now = datetime.now(UTC)
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    state = _synchronised()
    if state is None:
        return Finding("clock", f"{found}; whether it is synchronised, this system does not say")
    if state:
        return Finding("clock", f"{found}, synchronised")
    advice = "set up NTP: logs of several hosts cannot be compared otherwise, and rules per day are counted by it"
    return Finding("clock", f"{found}, not synchronised", Verdict.SLOW, advice)


def _synchronised() -> bool | None:
    """By what the kernel says; None where it says nothing."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError):
        return None
    # struct timex, of which nothing is asked to be changed (modes = 0).
    state = int(adjtimex(ctypes.create_string_buffer(256)))
    return None if state < 0 else state != _UNSYNCHRONISED


def randomness() -> Finding:
    """Whether the system's generator has been seeded: every share comes from it."""
    try:
        os.getrandom(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        advice = "wait until the system has gathered entropy, or give the virtual machine a random device (virtio-rng)"
        return Finding("randomness", "the system's generator is not seeded yet", Verdict.BAD, advice)
    except AttributeError:
        return Finding("randomness", "of the system's generator")
    return Finding("randomness", "of the system's generator, seeded")
