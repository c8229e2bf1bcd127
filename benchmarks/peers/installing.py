"""Virtual environments for the peers: one for each, from pinned requirements, by the user's own pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mpc.errors import ConfigurationError, TesseraError, UsageError

REQUIREMENTS = Path(__file__).parent / "requirements"
PEERS = ("crypten", "spu", "mpyc", "tenseal")
FOLDER = Path("~/.cache/tessera/peers")


def interpreter(peer: str, folder: Path) -> Path:
    """The Python of a peer's environment."""
    return folder.expanduser() / peer / "bin" / "python"


def installed(peer: str, folder: Path) -> bool:
    """Whether the peer's environment is complete: the mark is made last."""
    return _mark(peer, folder).is_file() and interpreter(peer, folder).exists()


def _mark(peer: str, folder: Path) -> Path:
    return folder.expanduser() / peer / "tessera-installed"


def install(peers: list[str], folder: Path, python: str = sys.executable) -> int:
    """Make the environments, anew where they exist; the exit code.

    What pip says goes to stderr.  pip's own settings hold: an index with CPU builds of torch, say, is given by
    ``PIP_EXTRA_INDEX_URL``.  Raises UsageError for a peer that does not exist, TesseraError where one failed.
    """
    for peer in peers:
        if peer not in PEERS:
            raise UsageError(f"there is no peer {peer!r} to install: the known ones are {', '.join(PEERS)}")
    try:
        folder.expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} cannot be made: {error.strerror}") from error
    failed = [peer for peer in peers or PEERS if not _install(peer, folder, python)]
    if failed:
        raise TesseraError(f"{', '.join(failed)} not installed: see what pip said above")
    return 0


def _install(peer: str, folder: Path, python: str) -> bool:
    print(f"installing {peer} into {folder.expanduser() / peer}", file=sys.stderr)
    _mark(peer, folder).unlink(missing_ok=True)
    pip = [str(interpreter(peer, folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [[python, "-m", "venv", "--clear", str(folder.expanduser() / peer)]]
    steps.append([*pip, "--requirement", str(REQUIREMENTS / f"{peer}.txt")])
    alone = REQUIREMENTS / f"{peer}.alone.txt"
    if alone.is_file():
        steps.append([*pip, "--no-deps", "--requirement", str(alone)])
    try:
        for step in steps:
            subprocess.run(step, check=True, stdout=sys.stderr)  # noqa: S603 - our own command
    except (OSError, subprocess.CalledProcessError):
        return False
    _mark(peer, folder).touch()
    return True
