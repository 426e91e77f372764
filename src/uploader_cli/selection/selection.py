"""What a run is to send, as a stream whose beginning is known: nothing is sent before some of it was looked at."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from uploader_cli.core.plan import LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uploader_cli.selection.walk import Selected, Step

AHEAD = 1000
"""Steps that are taken before anything is sent: a selection that ends within them is known as a whole."""
MOST_AHEAD = 10_000
"""Items that are looked at where none of them can be sent."""


class Selection:
    """Items in a stable order, to be gone through once.

    `ahead` are the first ones; `complete` says that there are no others.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        """Takes the first steps; raises what they raise."""
        self._later = iter(steps)
        self.ahead: list[Selected] = []
        self.complete = False
        found = taken = 0
        while taken < AHEAD or (not found and len(self.ahead) < MOST_AHEAD):
            try:
                step = next(self._later)
            except StopIteration:
                self.complete = True
                break
            taken += 1
            if step is not None:
                self.ahead.append(step)
                found += isinstance(step, LocalFile)

    @property
    def files(self) -> list[LocalFile]:
        """Those of `ahead` that can be sent."""
        return [item for item in self.ahead if isinstance(item, LocalFile)]

    def steps(self) -> Iterator[Step]:
        """Every item, and None wherever something else was passed by."""
        return chain(self.ahead, self._later)

    def __iter__(self) -> Iterator[Selected]:
        return (item for item in self.steps() if item is not None)
