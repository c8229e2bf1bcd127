"""Types of fields that many messages have, and who may send what."""

from __future__ import annotations

from typing import Annotated

import msgspec

from parties.members.cluster import Role

NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
"""What a member, or a secret, may be called; as a pattern, to make others of."""

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}\Z")]
Ruled = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}(/{NAME})?\Z")]
"""What a client has rules on: a name of its own, or ``owner/name`` of what belongs to it jointly."""
MAX_TEXT = 2000
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

FROM_CLIENT: frozenset[Role] = frozenset({Role.CLIENT})
FROM_DEALER: frozenset[Role] = frozenset({Role.DEALER})
FROM_PARTY: frozenset[Role] = frozenset({Role.PARTY})
