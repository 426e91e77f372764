"""The speed of a run over its time, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 300
"""Maximum steps: when a run outlasts them, each two become one that is twice as long."""


@dataclass(slots=True)
class Timeline:
    """The bytes sent and the files completed in each step of time. `step` is in seconds."""

    step: float = 0.1
    bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    _total: tuple[int, int] = (0, 0)

    def update(self, seconds: float, sent: int, completed: int) -> None:
        """Record the totals at `seconds` after the start."""
        slot = int(max(0.0, seconds) / self.step)
        while slot >= MOST:
            self.step *= 2
            slot //= 2
            self.bytes, self.files = _halved(self.bytes), _halved(self.files)
        missing = [0] * (slot + 1 - len(self.bytes))
        self.bytes += missing
        self.files += missing
        self.bytes[-1] += sent - self._total[0]
        self.files[-1] += completed - self._total[1]
        self._total = (sent, completed)


def _halved(counts: list[int]) -> list[int]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
