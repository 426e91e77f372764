"""Visit everything that can happen, once: worlds are values, and each move leads to another world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

World = TypeVar("World")


class Budget(NamedTuple):
    """How much may go wrong."""

    faults: int
    kills: int

    def less(self, faults: int, kills: int) -> Budget | None:
        """Return what is left; None if that is not enough."""
        left = Budget(self.faults - faults, self.kills - kills)
        return left if min(left) >= 0 else None


class Move(NamedTuple, Generic[World]):
    """What can happen next. `pair` is the state of the machine and the class of answer that it meets."""

    label: str
    world: World
    faults: int = 0
    kills: int = 0
    pair: tuple[str, str] | None = None


@dataclass
class Found:
    """What an exploration has met."""

    worlds: int = 0
    edges: int = 0
    sequences: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __str__(self) -> str:
        known = f"{self.sequences:,} sequences, {self.worlds:,} distinct states, {self.edges:,} edges"
        return f"{known}, {len(self.pairs)} pairs of a state and a class of answer"


def explore(
    start: World,
    moves: Callable[[World, Budget], Iterator[Move[World]]],
    key: Callable[[World], Hashable],
    budget: Budget,
) -> Found:
    """Take every move from every world within the budget. A failed assertion of `moves` names the path to it."""
    found, known = Found(), dict[Hashable, int]()
    path: list[str] = []
    inside = set[Hashable]()  # the worlds of the path

    def visit(world: World, left: Budget) -> int:
        """Return the number of sequences from here on."""
        place = key(world), left
        if (ways := known.get(place)) is not None:
            return ways
        if place in inside:
            error = AssertionError("it never ends")
            error.add_note(" → ".join(path))
            raise error
        inside.add(place)
        found.worlds += 1
        ways, is_end = 0, True
        try:
            for move in moves(world, left):
                rest = left.less(move.faults, move.kills)
                if rest is None:
                    continue
                is_end = False
                found.edges += 1
                if move.pair is not None:
                    found.pairs[move.pair] += 1
                path.append(move.label)
                ways += visit(move.world, rest)
                path.pop()
        except AssertionError as error:
            if not getattr(error, "__notes__", None):
                error.add_note(" → ".join(path))
            raise
        inside.discard(place)
        known[place] = ways = ways or is_end
        return ways

    found.sequences = visit(start, budget)
    return found
