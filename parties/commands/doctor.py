"""``tessera doctor``: what this computer has and lacks, in a few seconds, before any server runs and without a key."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster
from parties.operate.check.report import stdout_console
from parties.operate.doctor import computer, network, packages
from parties.operate.doctor.findings import Finding, bad, show, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera doctor``."""
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="look at its servers' addresses and ports, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code: that of ConfigurationError if something is wrong."""
    cluster = None if options.cluster is None else Cluster.load(options.cluster)
    findings = []
    with Console(stderr=True).status("looking") as status:
        for each in examine(cluster):
            status.update(f"looking at {each.what}")
            findings.append(each)
    if options.json:
        wrong = bad(findings)
        failure = ConfigurationError(f"{wrong[0].what}: {wrong[0].found}").to_dict() if wrong else {}
        print(json.dumps({**failure, **summary(findings)}))
    else:
        show(findings, stdout_console())
    return ConfigurationError.exit_code if bad(findings) else 0


def examine(cluster: Cluster | None) -> Iterator[Finding]:
    """What is found, one after the other; a look at a host that does not answer takes three seconds."""
    yield from packages.versions()
    yield packages.encrypted_links()
    yield from computer.processor()
    yield computer.memory()
    yield computer.compiled()
    yield computer.randomness()
    yield computer.descriptors()
    yield computer.room(Path())
    yield computer.clock()
    yield network.loopback()
    if cluster is not None:
        yield from network.members(cluster)
