"""A cluster file and, beside it, ``FILE.signed``: the file with its signatures, and those before it, as lines of
JSON.

That is how files travel where servers do not carry them, and how one that is started finds out what has followed the
file that its data folder goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster
from parties.members.succession import Step, decode, encode


def signed_path(path: Path) -> Path:
    """Where the signatures of a cluster file are."""
    return path.with_name(f"{path.name}.signed")


def steps_beside(path: Path) -> list[Step]:
    """What is in ``FILE.signed``; nothing if there is none.  Raises ConfigurationError."""
    beside = signed_path(path)
    try:
        return decode(beside.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"{beside} cannot be read: {error.strerror}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{beside}: {error}") from None


def read_signed(path: Path) -> Step:
    """The cluster file, with the signatures of it that lie beside it.  Raises ConfigurationError."""
    cluster = Cluster.load(path)
    known = (step for step in steps_beside(path) if step.cluster().fingerprint == cluster.fingerprint)
    return next(known, Step(cluster.dumps()))


def write_signed(
    path: Path, step: Step, steps: Sequence[Step], is_former: Callable[[str], bool] = lambda _: False
) -> None:
    """The file, and beside it ``steps``; in place of one with a former fingerprint, and of no other.

    Raises ConfigurationError.
    """
    found = Cluster.load(path).fingerprint if path.exists() else ""
    same = found == step.cluster().fingerprint
    if found and not same and not is_former(found):
        raise ConfigurationError(f"{path} is another cluster file, and is not overwritten: choose another name")
    try:
        if not same:
            path.write_text(step.text, encoding="utf-8")
        signed_path(path).write_bytes(encode(steps))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
