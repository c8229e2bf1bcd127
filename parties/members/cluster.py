"""Who takes part in a cluster: its members, and what all of them have to agree on.  It holds no secrets.

`parties.members.cluster_file` documents the file.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import NoReturn

import msgspec

from mpc.errors import ConfigurationError
from parties.members.cluster_file import FORMAT, ClientTable, DealerTable, File, PartyTable, Settings, read, written
from parties.members.keys import curve_half, is_public_key, is_signed, signing_half

# Whatever memory there is: chunks of uploads are of 4 MiB.
_LEAST_MESSAGE_MB = 16

DEALER = "dealer"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})\Z")


def is_name(text: str) -> bool:
    """Whether a cluster or a member may be called so: letters, digits, '-', '_' and '.', at most 64."""
    return _NAME.match(text) is not None


def address_fault(address: str) -> str | None:
    """What is wrong with ``host:port``, and what to write; None if nothing is."""
    match = _ADDRESS.match(address)
    if match is None:
        return f"{address!r} is not host:port: write it like 10.0.0.2:7001 or [fd00::2]:7001"
    if not 1 <= int(match["port"]) <= 65535:
        return f"port {match['port']} is out of range: use 1 to 65535"
    return None


class Role(enum.StrEnum):
    """What a member is in the cluster."""

    DEALER = "dealer"
    PARTY = "party"
    CLIENT = "client"
    OPERATOR = "operator"
    """Whoever holds a server's key and is not that server, but talks to it: no line of the file."""


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the cluster file.

    Attributes:
        name: unique in the cluster; the dealer's is ``"dealer"``.
        role: what it is.
        index: position among the members of its role, from 0; a party's index is its party number.
        address: ``host:port`` that others connect to; None for a client.
        key: public key, 80 characters of Z85 (``parties.members.keys``).
        listen: ``host:port`` to bind, where that is not ``address``.
        data_port: port of its data channels (``parties.wire.channels``); None: a free one, of which it tells; 0: none.
        origin: the key that it came with, where that has been replaced since (`parties.members.succession`), or empty.
    """

    name: str
    role: Role
    index: int = dataclass_field(compare=False)
    """Not compared: whoever stays is the same, whoever else goes."""
    address: str | None
    key: str
    listen: str | None = None
    origin: str = dataclass_field(default="", compare=False)
    data_port: int | None = None

    @property
    def is_server(self) -> bool:
        """Whether it listens: the dealer and the parties do, clients do not."""
        return self.role in (Role.DEALER, Role.PARTY)

    @property
    def identity(self) -> str:
        """Who it is, in what is stored for years: the key that it came with, whichever it has now."""
        return self.origin or self.key

    @property
    def curve(self) -> str:
        """The part of ``key`` that links are made under, 40 characters."""
        return curve_half(self.key)

    def signed(self, signature: bytes, purpose: str, *parts: bytes) -> bool:
        """Whether this member has signed these parts, in this order, for that purpose (``KeyPair.sign``)."""
        return is_signed(self.key, signature, purpose, *parts)


@dataclass(frozen=True)
class Cluster:
    """A validated cluster; see `parties.members.cluster_file` for the file.

    ``Cluster(...)`` checks its arguments just as `loads` checks a file and raises `ConfigurationError` alike,
    so a cluster that exists is a valid one.
    """

    name: str
    dealer: Member
    parties: tuple[Member, ...]
    clients: tuple[Member, ...] = ()
    settings: Settings = dataclass_field(default_factory=Settings)
    number: int = 1
    former: str = ""
    """Fingerprint of the file before this one."""
    source: str = dataclass_field(default="cluster file", compare=False)

    @classmethod
    def build(
        cls,
        name: str,
        *,
        dealer: tuple[str, str],
        parties: Sequence[tuple[str, str, str]],
        clients: Iterable[tuple[str, str]] = (),
        settings: Settings | None = None,
    ) -> Cluster:
        """A cluster from ``(address, key)``, ``(name, address, key)`` and ``(name, key)`` tuples."""
        return cls(
            name,
            Member(DEALER, Role.DEALER, 0, *dealer),
            tuple(Member(who, Role.PARTY, i, address, key) for i, (who, address, key) in enumerate(parties)),
            tuple(Member(who, Role.CLIENT, i, None, key) for i, (who, key) in enumerate(clients)),
            settings or Settings(),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Cluster:
        """Reads a cluster file.  Raises `ConfigurationError` naming the file, the field and the remedy."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigurationError(
                f"cluster file {os.fspath(path)} does not exist: give its path, to a command with --cluster"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cluster file {os.fspath(path)} cannot be read: {error}") from error
        return cls.loads(text, source=f"cluster file {os.fspath(path)}")

    @classmethod
    def loads(cls, text: str, *, source: str = "cluster file") -> Cluster:
        """The cluster that ``text`` describes; ``source`` is what errors call it."""
        file = read(text, source)
        return cls(
            file.name,
            _server(DEALER, Role.DEALER, 0, file.dealer),
            tuple(_server(party.name, Role.PARTY, i, party) for i, party in enumerate(file.party)),
            tuple(Member(c.name, Role.CLIENT, i, None, c.key, origin=c.origin) for i, c in enumerate(file.client)),
            file.settings,
            file.number,
            file.former,
            source,
        )

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            self._reject("name", f"{self.name!r} is not a name: use letters, digits, '-', '_' and '.'")
        if len(self.parties) < 2:
            self._reject("party", f"{len(self.parties)} given: list at least 2 parties")
        names: dict[str, str] = {}
        keys: dict[str, str] = {}
        addresses: dict[str, str] = {}
        for member in self.members:
            where = DEALER if member.role is Role.DEALER else f"{member.role}[{member.index}]"
            if not _NAME.match(member.name):
                self._reject(f"{where}.name", f"{member.name!r} is not a name: use letters, digits, '-', '_' and '.'")
            self._unique(names, member.name, f"{where}.name", "give each member a name of its own")
            if not is_public_key(member.key):
                self._reject(
                    f"{where}.key",
                    "not a public key (80 characters of Z85): copy it from the output of `tessera keygen`",
                )
            if member.origin and not is_public_key(member.origin):
                self._reject(f"{where}.origin", "not a public key: leave it to `tessera cluster propose`")
            halves = [half(key) for key in (member.key, member.origin) if key for half in (curve_half, signing_half)]
            for half in halves:
                self._unique(keys, half, f"{where}.key", "make a key for each with `tessera keygen`")
            for kind, address in (("address", member.address), ("listen", member.listen)):
                fault = None if address is None else address_fault(address)
                if fault is not None:
                    self._reject(f"{where}.{kind}", fault)
            if member.data_port and str(member.data_port) in map(_port, (member.address, member.listen)):
                self._reject(f"{where}.data_port", f"{member.data_port} is the port of its address: give another")
            if member.address is not None:
                self._unique(addresses, member.address, f"{where}.address", "give each an address of its own")
        if bool(self.former) != (self.number > 1):
            self._reject("former", "every file but number 1 says the fingerprint of the one before, and number 1 none")
        for signer in self.settings.signers:
            if signer not in names:
                self._reject("settings.signers", f"no member is called {signer!r}")
        if len(set(self.settings.signers)) != len(self.settings.signers):
            self._reject("settings.signers", "a member is named twice")

    def _unique(self, seen: dict[str, str], value: str, where: str, remedy: str) -> None:
        if value in seen:
            self._reject(where, f"the same as {seen[value]}: {remedy}")
        seen[value] = where

    def _reject(self, where: str, reason: str) -> NoReturn:
        raise ConfigurationError(f"{self.source}: {where}: {reason}")

    @property
    def members(self) -> tuple[Member, ...]:
        """Everyone: the dealer, the parties in order, the clients."""
        return (self.dealer, *self.parties, *self.clients)

    @property
    def coordinator(self) -> Member:
        """Who decides which version of a stored secret is in use: the dealer plays this role too."""
        return self.dealer

    @property
    def servers(self) -> tuple[Member, ...]:
        """Those that listen: the dealer and the parties in order."""
        return (self.dealer, *self.parties)

    @property
    def signers(self) -> tuple[Member, ...]:
        """Whose signatures the file after this one needs: by default all servers."""
        named = self.settings.signers
        return tuple(m for m in self.members if m.name in named) if named else self.servers

    @property
    def max_message_bytes(self) -> int:
        """Largest payload of one message, in bytes: of a run that there is memory for, none is larger."""
        settings, part = self.settings, 4 if len(self.clients) > 1 else 2
        most = max(_LEAST_MESSAGE_MB, settings.memory_mb // part) if settings.memory_mb else settings.max_message_mb
        return min(settings.max_message_mb, most) << 20

    def servers_beside(self, member: Member) -> int:
        """How many servers share the host of that server, itself included."""
        return sum(1 for server in self.servers if _host(server) == _host(member))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, in hexadecimal; equal exactly when two files say the same."""
        content = msgspec.json.encode(self._as_file(), order="sorted")
        return hashlib.sha256(content).hexdigest()

    @property
    def terms(self) -> str:
        """SHA-256 of what all have to agree on for a run, in hexadecimal: of all but clients, addresses and signers."""
        settings = msgspec.to_builtins(msgspec.structs.replace(self.settings, signers=()))
        return _digest([self.name, [server.key for server in self.servers], settings])

    @functools.cached_property
    def circle(self) -> str:
        """SHA-256 of who the servers are, in their order, in hexadecimal: whatever keys and addresses they have now.

        Shares and masks are of no use among others.
        """
        return _digest([server.identity for server in self.servers])

    @property
    def bond(self) -> str:
        """SHA-256 of what preprocessing is dealt for, in hexadecimal: of the name, the circle and the security."""
        return _digest([self.name, self.circle, str(self.settings.security)])

    def member(self, name: str) -> Member:
        """The member of that name.  Raises `ConfigurationError` listing the names if there is none."""
        for member in self.members:
            if member.name == name:
                return member
        known = ", ".join(member.name for member in self.members)
        raise ConfigurationError(f"{self.source}: no member is called {name!r}: it lists {known}")

    def client(self, name: str) -> Member | None:
        """The client of that name, or None."""
        return next((client for client in self.clients if client.name == name), None)

    def client_who_is(self, identity: str) -> Member | None:
        """The client of that ``Member.identity``, or None."""
        return next((client for client in self.clients if client.identity == identity), None)

    def by_key(self, key: str) -> Member | None:
        """The member with that public key, or None for a stranger."""
        return next((member for member in self.members if member.key == key), None)

    def dumps(self) -> str:
        """The cluster as TOML; ``Cluster.loads(cluster.dumps()) == cluster``."""
        return written(self._as_file())

    def _as_file(self) -> File:
        return File(
            FORMAT,
            self.name,
            DealerTable(*_entry(self.dealer)),
            tuple(PartyTable(party.name, *_entry(party)) for party in self.parties),
            tuple(ClientTable(c.name, c.key, c.origin) for c in self.clients),
            self.settings,
            self.number,
            self.former,
        )


def _server(name: str, role: Role, index: int, table: DealerTable | PartyTable) -> Member:
    return Member(name, role, index, table.address, table.key, table.listen, table.origin, table.data_port)


def _entry(server: Member) -> tuple[str, str, str | None, int | None, str]:
    return server.address or "", server.key, server.listen, server.data_port, server.origin


def _digest(content: object) -> str:
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _port(address: str | None) -> str:
    return (address or "").rpartition(":")[2]


def _host(member: Member) -> str:
    return (member.address or "").rpartition(":")[0]
