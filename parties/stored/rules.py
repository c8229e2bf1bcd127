"""What owners have allowed, as a server has it: by the name of the secret, in its data folder.

Rules belong to a name and its owner, not to a version: they outlast an upload in its place, and go when the name is
removed.  ``parties.stored.policy`` says what they mean.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from mpc.errors import ProgramError
from parties.cluster import Cluster, Member
from parties.stored.policy import EVERYONE, is_rule, merged
from parties.stored.quotas import MAX_RULES
from parties.stored.record import Rules
from parties.stored.version_database import VersionDatabase

MOST_CLIENTS = 1000
"""That rules of one secret name."""


class RuleBook:
    """Rules by name.  Methods that say so block, on the disk."""

    def __init__(self, vault: VersionDatabase, cluster: Cluster) -> None:
        self._vault = vault
        self.follow(cluster)
        self._rules = vault.rules()
        self._writing = threading.Lock()

    def follow(self, cluster: Cluster) -> None:
        """From now on rules are of these clients."""
        self._clients = {client.name for client in cluster.clients}

    def grants(self, name: str, owner: Member) -> Mapping[str, frozenset[str]]:
        """Programs by client, of that owner's secret."""
        rules = self._rules.get(name)
        return {} if rules is None or rules.owner != owner.identity else rules.grants

    def check(self, client: str, programs: Iterable[str]) -> None:
        """Raises ProgramError for a client that the cluster does not have, or what is no rule."""
        if client != EVERYONE and client not in self._clients:
            raise ProgramError(f"the cluster has no client called {client!r}")
        for program in programs:
            if not is_rule(program):
                raise ProgramError(f"{program!r} names no program: give predict, any, schema, or a program's digest")

    def allow(self, name: str, owner: Member, client: str, programs: Iterable[str]) -> None:
        """From now on ``client`` may run these programs on ``name``, and no others.  Blocks.

        Raises ProgramError as ``check`` and for too many clients, VaultError.
        """
        programs = tuple(programs)
        self.check(client, programs)
        with self._writing:
            grants = merged(self.grants(name, owner), client, programs)
            if len(grants) > MOST_CLIENTS:
                raise ProgramError(f"rules of {name!r} name {MOST_CLIENTS} clients already: allow '*' instead")
            others = [r.grants for r in self._rules.values() if r.owner == owner.identity and r.name != name]
            if sum(len(programs) for each in (grants, *others) for programs in each.values()) > MAX_RULES:
                raise ProgramError(
                    f"rules of {owner.name} allow {MAX_RULES} programs already, each counted for every client that may"
                    " run it: allow fewer first (tessera allow NAME CLIENT --nothing)"
                )
            rules = Rules(name, owner.identity, grants)
            self._vault.write_rules(rules)
            self._rules[name] = rules

    def forget(self, name: str) -> None:
        """The secret is gone, and from the disk its rules with it."""
        self._rules.pop(name, None)
