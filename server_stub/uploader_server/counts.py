"""What happens on a server, told to the features that count it."""

from __future__ import annotations

from collections.abc import Callable


class Counts:
    """Called with what happened and its labels: one of `events`, `joins`, `refused` and `analyses`."""

    def __init__(self) -> None:
        self.told: list[Callable[..., None]] = []

    def __call__(self, what: str, *labels: str) -> None:
        for tell in self.told:
            tell(what, *labels)
