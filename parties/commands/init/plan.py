"""``tessera init``: the plan of a cluster, checked answer by answer, and the files made from it.

Best is that nobody ever holds another member's private key: each makes its own with ``tessera keygen`` on its own host,
and gives the public half only.  For whoever's public key is not given, a key pair is made here, to be carried to its
host and removed: good for trying things out, and for members that are all one's own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mpc.errors import ConfigurationError, unwritable
from mpc.security import Security
from parties.members.cluster import DEALER, Cluster, Member, Role, address_fault, is_name
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair, is_public_key

CLUSTER_FILE = "cluster.toml"
DEFAULT_PORTS = {Role.DEALER: 7000, Role.PARTY: 7001}


@dataclass
class Entry:
    """A member to be; ``key`` is its public key, None where a pair is to be made."""

    name: str
    role: Role
    address: str | None = None
    listen: str | None = None
    key: str | None = None


@dataclass
class Plan:
    """A cluster to be.  Every method checks what it is given at once, and raises ConfigurationError."""

    name: str = ""
    security: Security = Security.SEMI_HONEST
    members: list[Entry] = field(default_factory=list)

    def call(self, name: str) -> None:
        """The cluster's name."""
        if not is_name(name):
            raise ConfigurationError(f"{name!r} is not a name: use up to 64 letters, digits, '-', '_' and '.'")
        self.name = name

    def secure(self, security: str) -> None:
        """``semi-honest`` or ``malicious``."""
        if security not in set(Security):
            raise ConfigurationError(f"security {security!r} is not one of {', '.join(Security)}")
        self.security = Security(security)

    def add(self, name: str, role: Role, address: str | None = None) -> Entry:
        """A member; a server's address may leave out the port."""
        if role is Role.DEALER:
            if self.of(role):
                raise ConfigurationError("there is a dealer already: a cluster has one")
        else:
            self.check_name(name)
        entry = Entry(name, role, None if address is None else self.checked_address(address, role))
        self.members.append(entry)
        return entry

    def check_name(self, name: str) -> None:
        """It is one, and nobody else's; not for the dealer's, which is always the same."""
        if not is_name(name):
            raise ConfigurationError(f"{name!r} is not a name: use up to 64 letters, digits, '-', '_' and '.'")
        if name == DEALER or any(member.name == name for member in self.members):
            raise ConfigurationError(f"there is a member called {name!r} already: give each a name of its own")

    def checked_address(self, address: str, role: Role) -> str:
        """With the role's port where none is given."""
        bare = address.strip()
        host, colon, _ = bare.rpartition(":")
        if bare and (not colon or bare.endswith("]")):
            bare = f"{bare}:{DEFAULT_PORTS[role]}"
        elif ":" in host and not host.startswith("["):
            raise ConfigurationError(f"{address!r}: write an IPv6 address in brackets, like [fd00::2]:7001")
        fault = address_fault(bare)
        if fault is not None:
            raise ConfigurationError(fault)
        taken = next((member.name for member in self.members if member.address == bare), None)
        if taken is not None:
            raise ConfigurationError(f"{bare} is the address of {taken} already: give each an address of its own")
        return bare

    def listen(self, name: str, address: str) -> None:
        """Where a server binds, if that is not the address that others connect to."""
        entry = self.entry(name)
        if entry.role is Role.CLIENT:
            raise ConfigurationError(f"{name} is a client, which does not listen: leave its --listen out")
        fault = address_fault(address)
        if fault is not None:
            raise ConfigurationError(fault)
        entry.listen = address

    def give_key(self, name: str, key: str) -> None:
        """The public key that a member has made for itself."""
        entry = self.entry(name)
        if not is_public_key(key):
            raise ConfigurationError(
                f"what is given for {name} is not a public key (80 characters of Z85): copy it from the output of "
                f"`tessera keygen {name}`, in single quotes on a command line"
            )
        taken = next((member.name for member in self.members if member.key == key and member is not entry), None)
        if taken is not None:
            raise ConfigurationError(
                f"{name} and {taken} have the same public key: each makes one with `tessera keygen`"
            )
        entry.key = key

    def entry(self, name: str) -> Entry:
        """The member of that name."""
        for entry in self.members:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.members)
        raise ConfigurationError(f"no member is called {name!r}: there are {known}")

    def of(self, role: Role) -> list[Entry]:
        """Members of a role, in order."""
        return [entry for entry in self.members if entry.role is role]

    def warnings(self) -> list[str]:
        """Hosts that several servers share, and so see what one member alone must not see."""
        by_host: dict[str, list[str]] = {}
        for entry in self.members:
            if entry.address is not None:
                by_host.setdefault(entry.address.rpartition(":")[0], []).append(entry.name)
        return [
            f"{' and '.join(names)} share the host {host}: whoever runs it has what each of them alone must not have, "
            "which is for trying things out only"
            for host, names in by_host.items()
            if len(names) > 1
        ]


@dataclass(frozen=True)
class Made:
    """What was written, and what is to be done now."""

    cluster: Cluster
    folder: Path
    key_files: dict[str, Path]
    """Of the members whose key pairs were made here."""
    warnings: list[str]

    @property
    def path(self) -> Path:
        return self.folder / CLUSTER_FILE

    def steps(self, member: Member) -> dict[str, str | None]:
        """Commands for one member: copy (here), start and check (there); None where there is nothing to do."""
        key = self.key_files.get(member.name)
        files = shlex.join(str(path) for path in (self.path, *([] if key is None else [key])))
        start = None
        if member.is_server:
            role = DEALER if member.role is Role.DEALER else f"party {member.index}"
            start = f"tessera {role} --cluster {CLUSTER_FILE} --key {member.name}.key"
        target = (member.address or "HOST:").rpartition(":")[0] + ":"
        return {
            "copy": f"scp -p {files} {shlex.quote(target)}",
            "remove": None if key is None else f"rm {shlex.quote(str(key))}",
            "start": start,
            "check": None if start else f"tessera check --cluster {CLUSTER_FILE} --key {member.name}.key",
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "cluster": self.cluster.name,
            "file": str(self.path),
            "fingerprint": self.cluster.fingerprint,
            "members": [
                {
                    "name": member.name,
                    "role": str(member.role),
                    "address": member.address,
                    "public": member.key,
                    "key_file": str(self.key_files[member.name]) if member.name in self.key_files else None,
                    **self.steps(member),
                }
                for member in self.cluster.members
            ],
            "warnings": self.warnings,
        }

    def __str__(self) -> str:
        return "\n".join([f"written: {self.path} (no secrets in it; the same file for everyone)", *self._lines()])

    def _lines(self) -> Iterator[str]:
        for name, path in self.key_files.items():
            yield f"written: {path} (secret: it belongs on {name}'s host, and nowhere else)"
        if self.key_files:
            yield ""
            yield "Key pairs were made here, so this host could play these members.  Outside of a trial, let each"
            yield "member run `tessera keygen NAME` on its own host, and give its public key with --public-key."
        yield ""
        yield "What to do next"
        for member in self.cluster.members:
            steps = self.steps(member)
            yield ""
            yield f"{member.name} ({member.role}{'' if member.address is None else f', {member.address}'})"
            if member.name not in self.key_files:
                yield f"  there:  have {member.name}.key, from `tessera keygen {member.name}`, beside {CLUSTER_FILE}"
            yield f"  here:   {steps['copy']}"
            if steps["remove"]:
                yield f"  here:   {steps['remove']}"
            yield f"  there:  {steps['start'] or steps['check']}"
        if not self.cluster.clients:
            yield ""
            yield "There is no client yet: add [[client]] to the file, with its name and key, before it is copied."


def write(plan: Plan, folder: Path) -> Made:
    """Makes the missing key pairs and writes everything, or nothing.

    Raises ConfigurationError: something is there already (nothing is ever overwritten), or cannot be written; DiskFull.
    """
    pairs = {entry.name: KeyPair.generate() for entry in plan.members if entry.key is None}
    cluster = _cluster(plan, pairs)
    path = folder / CLUSTER_FILE
    key_files = {name: folder / f"{name}.key" for name in pairs}
    _refuse_existing(path, key_files)
    with contextlib.ExitStack() as undo:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, pair in pairs.items():
                pair.save(key_files[name])
                undo.callback(key_files[name].unlink)
            # Last: where it is, the keys are.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            undo.callback(path.unlink)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(cluster.dumps())
        except OSError as error:
            raise unwritable(str(folder), error) from error
        undo.pop_all()
    return Made(cluster, folder, key_files, plan.warnings())


def _cluster(plan: Plan, pairs: dict[str, KeyPair]) -> Cluster:
    def member(entry: Entry, index: int) -> Member:
        key = entry.key or pairs[entry.name].public
        return Member(entry.name, entry.role, index, entry.address, key, entry.listen)

    if not plan.of(Role.DEALER):
        raise ConfigurationError("the cluster has no dealer: give its address with --dealer")
    parties = tuple(member(entry, i) for i, entry in enumerate(plan.of(Role.PARTY)))
    if len(parties) < 2:
        raise ConfigurationError(f"{len(parties)} given: name at least 2 parties, each with --party NAME=ADDRESS")
    return Cluster(
        plan.name,
        member(plan.of(Role.DEALER)[0], 0),
        parties,
        tuple(member(entry, i) for i, entry in enumerate(plan.of(Role.CLIENT))),
        replace(Settings(), security=plan.security),
        source="the cluster",
    )


def _refuse_existing(path: Path, key_files: dict[str, Path]) -> None:
    if path.exists():
        raise ConfigurationError(f"{path} exists and is never overwritten: choose another folder with --out")
    for name, key in key_files.items():
        if key.exists():
            raise ConfigurationError(
                f"{key} exists and is never overwritten: choose another folder with --out, or, to use that key, give "
                f"its public half with --public-key {name}=KEY"
            )
