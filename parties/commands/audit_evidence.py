"""``tessera audit evidence``: what members have signed that proves that one of them has not kept to the protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpc.errors import AuditError, ConfigurationError, UsageError
from parties.members.cluster import Cluster
from parties.messages.evidence import Evidence, Verdict, statements_of, verify
from parties.operate.audit.words import moment
from parties.operate.evidence import found, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; ``--cluster`` and ``--json`` are added with those of the other actions."""
    parser.add_argument(
        "log", type=Path, metavar="EVIDENCE", help="a server's data folder, its evidence folder or a copy, or one file"
    )


def run(options: argparse.Namespace, clusters: Sequence[Cluster]) -> int:
    """The exit code: that of `AuditError` when a piece proves nothing."""
    pieces = [_judged(path, clusters) for path in _files(options.log)]
    wrong = not all(piece["proven"] for piece in pieces)
    code = AuditError.exit_code if wrong else 0
    if options.json:
        failure = AuditError("a piece of evidence proves nothing").to_dict() if wrong else {}
        print(json.dumps({**failure, "ok": not wrong, "exit_code": code, "evidence": pieces}))
        return code
    for piece in pieces:
        state = "PROVEN" if piece["proven"] else "FAIL  "
        run = f", run {piece['run']}" if piece["run"] else ""
        print(f"{state}  {moment(piece['when'])}  {piece['sentence']}{run}: signed by {', '.join(piece['signers'])}")
        print(f"        {piece['file']}")
    if not pieces:
        print("there is no evidence here")
    return code


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise ConfigurationError(f"{place} does not exist: give a server's data folder, or a file of evidence")
    # The folder itself, or the one that it lies in.
    return [path for path, _ in found(place.parent if place.name == "evidence" else place)]


def _judged(path: Path, clusters: Sequence[Cluster]) -> dict[str, Any]:
    """A piece, and what it proves by one of the cluster files."""
    evidence = read(path)
    verdict, sentence = _verdict(evidence, clusters)
    return {
        "file": str(path),
        "when": int(path.stat().st_mtime * 1000),
        "proven": verdict is not None,
        "culprit": verdict.culprit if verdict else "",
        "what": verdict.what if verdict else "",
        "run": verdict.run if verdict else "",
        "sentence": sentence,
        "signers": [statement.author for statement in statements_of(evidence)],
    }


def _verdict(evidence: Evidence, clusters: Sequence[Cluster]) -> tuple[Verdict | None, str]:
    sentence = "there is no cluster file"
    for cluster in clusters:
        try:
            verdict = verify(evidence, cluster)
        except UsageError as error:
            sentence = str(error)
        else:
            return verdict, verdict.sentence
    return None, sentence
