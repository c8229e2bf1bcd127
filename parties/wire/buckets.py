"""How often somebody may do something."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """Of what somebody may do so often at once, and so often each second for ever: full at first."""

    most: float
    per_second: float
    left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self._at = self.most, time.monotonic()

    def take(self, count: int = 1) -> bool:
        """Whether that was left, and is taken."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self._at) * self.per_second)
        self._at = now
        if self.left < count:
            return False
        self.left -= count
        return True
