"""The cluster file: who takes part, where they listen, and under which keys.  It holds no secrets.

Every process of a cluster, and every client, is given the same file::

    version = 1
    name = "skin"
    number = 2                     # optional: 1 is the first, and a changed file has one more (see succession)
    former = "5b0c..."             # of every file but the first: the fingerprint of the one before

    [dealer]
    address = "10.0.0.1:7000"
    key = "..."                    # 80 characters, of `tessera keygen`

    [[party]]                      # in order: the first is party 0
    name = "hospital"
    address = "10.0.0.2:7001"
    listen = "0.0.0.0:7001"        # optional: where to bind, if not at the address others connect to
    data_port = 7101               # optional: of this host, for large buffers; by default a free one, 0: none
    key = "..."

    [[party]]
    name = "university"
    address = "10.0.0.3:7001"
    key = "..."

    [[client]]                     # clients connect out, and so have no address
    name = "clinic-a"
    key = "..."
    origin = "..."                 # optional: the first key of a member that has another now

    [settings]                     # optional, with these defaults
    peer_timeout = 5.0             # s; a peer silent for longer in the middle of a run is lost
    round_timeout = 60.0           # s; the longest that one round may take
    prepared_timeout = 600.0       # s; a run that is prepared and not given its inputs within that is forgotten
    threads = 0                    # per process; 0: all cores, divided among the processes on a host
    memory_mb = 0                  # MiB for runs in progress at one server; 0: half of the host's, divided likewise
    max_message_mb = 2048          # MiB; a message beyond this is refused, or beyond a fourth of memory_mb
    security = "semi-honest"       # or "malicious": the same for everyone, so that nobody can be talked out of it
    audit_days = 0                 # entries of audit logs older than this are deleted; 0: none ever are
    audit_mb = 256                 # MiB of a server's audit log that a member may fill in a day; beyond it is refused
    signers = []                   # members that have to sign the next file; none named: all servers
"""

from __future__ import annotations

import json
import tomllib
from typing import Annotated

import msgspec

from mpc.errors import ConfigurationError
from mpc.security import Security

FORMAT = 1

MAX_THREADS = 1024

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``[settings]`` table; times in seconds."""

    peer_timeout: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 5.0
    round_timeout: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 60.0
    prepared_timeout: Annotated[float, msgspec.Meta(ge=1, le=604800)] = 600.0
    threads: Annotated[int, msgspec.Meta(ge=0, le=MAX_THREADS)] = 0
    memory_mb: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 0
    max_message_mb: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 2048
    security: Security = Security.SEMI_HONEST
    audit_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0
    audit_mb: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 256
    signers: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        # One form for what the file says as 60 and as 60.0: the fingerprint sees the difference.
        for name in ("peer_timeout", "round_timeout", "prepared_timeout"):
            msgspec.structs.force_setattr(self, name, float(getattr(self, name)))


class DealerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[dealer]``."""

    address: str
    key: str
    listen: str | None = None
    data_port: Port | None = None
    origin: str = ""


class PartyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One ``[[party]]``."""

    name: str
    address: str
    key: str
    listen: str | None = None
    data_port: Port | None = None
    origin: str = ""


class ClientTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One ``[[client]]``."""

    name: str
    key: str
    origin: str = ""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written."""

    version: int
    name: str
    dealer: DealerTable
    party: tuple[PartyTable, ...]
    client: tuple[ClientTable, ...] = ()
    settings: Settings = msgspec.field(default_factory=Settings)
    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] = 1
    former: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


def read(text: str, source: str) -> File:
    """What ``text`` says, checked table by table; ``source`` is what errors call it.  Raises ConfigurationError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not valid TOML: {error}") from None
    try:
        file = msgspec.convert(table, File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source}: {error}: correct the file".replace("`$.", "`")) from None
    if file.version != FORMAT:
        raise ConfigurationError(
            f"{source}: version: it is {file.version}, this release reads {FORMAT}: update Tessera or the file"
        )
    return file


def written(file: File) -> str:
    """As TOML."""
    lines = [f"version = {file.version}", f'name = "{file.name}"']
    if file.number > 1:
        lines += [f"number = {file.number}", f'former = "{file.former}"']

    def table(heading: str, content: msgspec.Struct) -> None:
        lines.extend(("", heading))
        for key, value in msgspec.to_builtins(content).items():
            # Strings here are names, addresses and Z85 keys: none has a quote or a backslash to escape.
            lines.append(f"{key} = {json.dumps(value) if isinstance(value, str | list | tuple) else value}")

    table("[dealer]", file.dealer)
    for party in file.party:
        table("[[party]]", party)
    for client in file.client:
        table("[[client]]", client)
    table("[settings]", file.settings)
    return "\n".join(lines) + "\n"
