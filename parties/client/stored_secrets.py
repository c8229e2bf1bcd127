"""What a client does with models and data sets on the parties: the part of ``AsyncClient`` that is about them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import overload

from mpc.errors import NoSuchName, NotPermitted, UsageError
from mpc.rings import PrimeField
from parties.client.queries import ModelEntry, find_model, list_models, remove_model, sought
from parties.client.remote_data import RemoteData, remote
from parties.client.remote_model import RemoteModel, Uploadable, check_uploadable, checked_name
from parties.client.rules import OwnRules
from parties.client.slots import Slots
from parties.client.switchboard import Switchboard
from parties.client.uploading import Uploading, UploadProgress
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.bindings import slot_of
from parties.messages.evidence import PURPOSE, Said, signed_bytes
from parties.messages.rules import Rule
from parties.stored.data_set import DataSet
from parties.stored.policy import PREDICT, SCHEMA


class StoredSecrets:
    """A client of a cluster, as far as stored secrets go; ``board`` has its connections."""

    def __init__(self, cluster: Cluster, member: Member, keys: KeyPair, board: Switchboard, field: PrimeField) -> None:
        self.member = member
        self._keys = keys
        self._board = board
        self._field = field
        self._slots = Slots(member.name)
        self._uploads = asyncio.Lock()
        # Longer than the servers': they know better than we whom they wait for, and tell us.
        self._patience = cluster.settings.round_timeout + cluster.settings.peer_timeout
        self._own_rules = OwnRules(board, cluster, member, keys, self._patience)
        self._servers = [server.name for server in cluster.servers]
        self._parties = [party.name for party in cluster.parties]

    @property
    def cluster(self) -> Cluster:
        """By the file that is in force."""
        return self._board.cluster

    def _sign(self, said: Said) -> bytes:
        return self._keys.sign(PURPOSE, signed_bytes(said))

    @overload
    async def upload(  # type: ignore[overload-overlap]  # a DataSet is uploadable, and the more special
        self, secret: DataSet, name: str, *, progress: Callable[[UploadProgress], None] | None = None
    ) -> RemoteData: ...
    @overload
    async def upload(
        self, secret: Uploadable, name: str, *, progress: Callable[[UploadProgress], None] | None = None
    ) -> RemoteModel: ...

    async def upload(
        self, secret: Uploadable, name: str, *, progress: Callable[[UploadProgress], None] | None = None
    ) -> RemoteModel | RemoteData:
        """Share a model's weights, or a ``DataSet``; it stays on the parties under ``name`` until the next one does.

        Every tensor w goes out as w - b, uniform, with b from seeds the dealer makes.  Public are the architecture,
        shapes, fraction bits, and the power of two that bounds each tensor.  Parties and dealer keep it on their disks,
        encrypted.  Until all of them have all of it, a former one of that name stays in use, whatever happens; an
        upload that fails because a server was lost at its very end may still come into use when that one is back.

        One goes out at a time, in chunks, 8 bytes per parameter to each party, with ``progress`` called as all parties
        have more of it.  When a server is lost it waits for that one (``round_timeout`` and ``peer_timeout`` of the
        cluster file together) and goes on where it was; and when it fails for that reason, or this process dies, the
        next upload of the same model under the same name goes on, within a day (``parties.client.uploading``).

        Names are this client's own: what others call so is something else.  What was allowed on an earlier upload of
        the name stays allowed on this one (``rules``), and servers that have lost the rules are told them beforehand.

        Raises UsageError, DiskFull, ServerBusy with too many uploads that are not complete, PeerError.
        """
        checked_name(name)
        check_uploadable(secret)
        tensors, description = secret.encode(), secret.describe()
        await self._board.reach(self._servers)
        uploading = Uploading(
            self._board,
            self.cluster,
            self._keys,
            self._patience,
            self._field,
            name=name,
            tensors=tensors,
            description=description,
            progress=progress,
        )
        # Two of one content at once would be the same upload.
        async with self._uploads:
            await self._own_rules.spread(name)
            version = await uploading.run()
        stored = remote(name, self.member.name, version, description)
        self._slots.note(stored)
        return stored

    async def model(self, name: str) -> RemoteModel:
        """A model that this client has uploaded, or may use: its own of that name, else another's.

        ``owner/name`` says whose.  Raises NotPermitted, naming what there is for us, when there is none; UsageError
        when several others have one, or when a party has lost its data.
        """
        found = await self._find(name)
        if isinstance(found, RemoteData):
            raise UsageError(f"{name!r} is a data set, and no model: client.data({name!r}) has its tensors")
        return found

    async def data(self, name: str) -> RemoteData:
        """A data set that this client has uploaded, or may use: ``(await client.data("trial"))["images"]``.

        Raises as ``model`` does.
        """
        found = await self._find(name)
        if isinstance(found, RemoteModel):
            raise UsageError(f"{name!r} is a model, and no data set: client.model({name!r}) is to be called with data")
        return found

    async def _find(self, name: str) -> RemoteModel | RemoteData:
        owner, own_name = sought(name)
        checked_name(own_name)
        if owner:
            checked_name(owner)
        await self._board.reach(self._parties)
        found = await find_model(self._board, self.cluster, self.member.name, name, self._patience)
        joint = sorted(found.others)
        secret = remote(own_name, found.owner, found.version, found.description, found.parts, joint=joint)
        self._slots.note(secret, found.allowed, found.others, found.made)
        return secret

    async def _is_data(self, name: str) -> bool:
        """Whether it is a data set, and no model, that we call so, or ``owner/name`` of what is ours as well.

        Raises NoSuchName for neither.
        """
        joint = "/" in name
        try:
            found = await self._find(name if joint else slot_of(self.member.name, name))
        except NotPermitted:
            found = None
        if found is None or self.member.name not in (found.owner, *found.joint):
            remedy = "it is not yours as well" if joint else "upload it first"
            raise NoSuchName(f"nothing of yours is stored under {name!r}: {remedy}")
        return isinstance(found, RemoteData)

    async def models(self) -> list[ModelEntry]:
        """This client's models on the parties, and those that it may use, by name.  Raises PeerError."""
        await self._board.reach(self._parties)
        return (await list_models(self._board, self.cluster, self._patience))[0]

    async def left_behind(self) -> list[str]:
        """Likewise, ``owner/name`` of what was shared among other servers than there are now: nobody can use it.

        Its owner has to upload it again.
        """
        await self._board.reach(self._parties)
        return (await list_models(self._board, self.cluster, self._patience))[1]

    async def allow(
        self,
        name: str,
        client: str,
        programs: Sequence[str] | None = None,
        *,
        schema: bool = False,
        runs: int | None = None,
        per_day: int | None = None,
        per_client: int | None = None,
    ) -> None:
        """Let ``client`` (``"*"``: every one) run ``programs``, and no others, on this client's model or data set.

        Programs: ``"predict"``, of a model, as it was described, on the client's own input or a data set that it may
        use so; a program's ``digest``; or ``"any"``, with which all of it can be revealed.  By default to predict, and
        without any, nothing any more.  ``schema``: it may know names, shapes and ranges, and ``request`` what it would
        run; that alone unless programs are given.
        Each program as often as ``runs`` says in all, ``per_day`` within one day of UTC, and ``per_client`` for each
        client that ``"*"`` stands for; counted from now on, also what is allowed again.  A run counts once it is
        prepared, whatever becomes of it (``parties.stored.gate``).

        Of what belongs to this client jointly with others (``Joint``), ``owner/name``, it says so beside its owner and
        the other joint owners: nobody uses it without the leave of all of them.  It holds for what is made by the very
        program that has made what is there now, and for nothing that another one puts in its place.

        Each server keeps the rules, which this client signs, and enforces them by itself; they outlast uploads under
        that name (``parties.stored.policy``).  What ``client`` has prepared by its former rules is over.

        Raises UsageError, NoSuchName when there is no such model or client, ProgramError for too many rules, PeerError.
        """
        held_by, own_name = sought(name)
        joint = bool(held_by) and held_by != self.member.name
        name = slot_of(checked_name(held_by), checked_name(own_name)) if joint else checked_name(own_name)
        await self._board.reach(self._servers)
        limits = {"runs": runs, "per_day": per_day, "per_client": per_client}
        for limit, number in limits.items():
            if number is not None and number < 1:
                raise UsageError(f"{limit}={number}: a limit is at least 1; to allow nothing, give no programs")
        if programs is None:
            programs = () if schema else (PREDICT,)
        if joint and schema:
            raise UsageError(f"{name!r} is held by {held_by}, who says that it may be known of")
        if (programs or schema) and await self._is_data(name) and PREDICT in programs:
            raise UsageError(f"{name!r} is a data set: name the programs that may read it by client.digest(result)")
        made = self._slots.made(name) if joint and programs else None
        rules = [Rule(client, program, 1, runs, per_day, per_client, made) for program in programs]
        await self._own_rules.allow(name, client, [*rules, Rule(client, SCHEMA, 1)] if schema else rules)

    async def rules(self, name: str) -> tuple[Rule, ...]:
        """What is allowed on this client's model or data set, now or once it is uploaded; or, by ``owner/name``, on
        what belongs to it jointly, beside what others allow.  Raises PeerError.
        """
        for part in filter(None, sought(name)):
            checked_name(part)
        await self._board.reach(self._servers)
        return await self._own_rules.of(name)

    async def remove(self, name: str) -> None:
        """Remove a model of this client's everywhere, for good, with its rules and what was dealt ahead for it.

        Raises NoSuchName when there is none of that name, PeerError.
        """
        checked_name(name)
        await self._board.reach(self._servers)
        await self._own_rules.clear(name)
        await remove_model(self._board, self.cluster, name, self._patience)
