"""A server of a simulation: as ``tessera dealer`` or ``tessera party``, but for who computes.

python -m benchmarks.workers.process RECORDING WORKERS STRETCH party 0 --cluster ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.workers.farm import Farm
from benchmarks.workers.recording import Recording
from benchmarks.workers.replaying import PlayedDealing
from parties.commands.command_line import parser_for
from parties.commands.serving import serve
from parties.host.dumps import no_core_files
from parties.members.cluster import Cluster


def main(recording: str, workers: str, stretch: str, *arguments: str) -> int:
    """Serves until stdin closes."""
    options = parser_for(arguments).parse_args(arguments)
    no_core_files()
    cluster = Cluster.load(options.cluster)
    played = msgspec.msgpack.decode(Path(recording).read_bytes(), type=Recording)
    member = cluster.dealer if "dealer" in arguments else cluster.parties[int(options.party)]
    log = workers_log(options.cluster.parent, member.name)
    return serve(
        options, cluster, member, lambda: Farm(int(workers), Path(recording), float(stretch), log),
        source=lambda rings: PlayedDealing(played, rings=rings),
    )  # fmt: skip


def workers_log(folder: Path, server: str) -> Path:
    """Where the process of a server's workers says how they get on."""
    return folder / f"{server}.workers"


def program(recording: Path, workers: int, stretch: float) -> Sequence[str]:
    """What is started, before a server's own arguments."""
    return [sys.executable, "-m", __name__, str(recording), str(workers), str(stretch)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
