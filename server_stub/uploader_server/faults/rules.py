"""Parsing and matching of fault rules: `KIND[:WHERE[#WHICH]][:PARAMETERS]`."""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_server.analysis.stages import STAGES
from uploader_server.faults.table import COUNTED, EVENTS, FAULTS, REQUESTS, SOCKETS, WHICH_TEXT, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uploader_server.faults.table import Fault

_WHICH = re.compile(r"/(?P<each>[1-9]\d{0,8})|(?P<first>[1-9]\d{0,8})(?P<open>-(?P<last>\d{1,9})?)?")
_NAMES: dict[Where, Iterable[str]] = {
    Where.REQUEST: REQUESTS,
    Where.EVENT: EVENTS,
    Where.SOCKET: SOCKETS,
    Where.STAGE: STAGES,
}


class RuleError(ValueError):
    """An invalid rule; the message has the rule, the error and the correct form."""


@dataclass(frozen=True)
class Which:
    """Selects matches by their number, counted from 1."""

    first: int = 1
    last: int | None = None
    each: int = 1

    def includes(self, number: int) -> bool:
        """Return whether the match with this number is selected."""
        return number >= self.first and (self.last is None or number <= self.last) and number % self.each == 0


@dataclass
class Rule:
    """One active fault."""

    text: str
    fault: Fault
    where: str
    which: Which
    values: dict[str, Any]
    """Parameters by name, with defaults."""
    seen: int = 0
    """Number of matches."""
    hits: int = field(default=0)
    """Number of matches that the fault acted on."""

    @property
    def kind(self) -> str:
        """The kind of fault."""
        return self.fault.kind

    def count(self) -> bool:
        """Count a match; return whether the fault acts on it."""
        self.seen += 1
        hit = self.which.includes(self.seen)
        self.hits += hit
        return hit

    def concerns(self, method: str, path: str) -> bool:
        """Return whether the rule matches this request."""
        methods, paths = REQUESTS.get(self.where) or self.where.split(" ", 1)
        return fnmatch.fnmatchcase(method, methods) and fnmatch.fnmatchcase(path, paths)

    def concerns_event(self, name: str) -> bool:
        """Return whether the rule matches an event of this name."""
        return fnmatch.fnmatchcase(name, EVENTS[self.where])


def parse_rule(text: str) -> Rule:
    """Parse a rule. Raises RuleError."""
    kind, _, rest = text.partition(":")
    fault = FAULTS.get(kind)
    if fault is None:
        near = difflib.get_close_matches(kind, FAULTS, n=1, cutoff=0.5)
        raise RuleError(
            f"{text!r}: there is no fault {kind!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + " (--list-faults shows all)"
        )
    try:
        where, which, parameters = _fields(fault, rest)
        return Rule(text, fault, where, which, _values(fault, parameters))
    except ValueError as error:
        raise RuleError(f"{text!r}: {error}; write {fault.form}, for example {fault.example}") from None


def _fields(fault: Fault, rest: str) -> tuple[str, Which, str]:
    """Split WHERE, WHICH and the parameters. Raises ValueError."""
    if fault.where is Where.NOTHING:
        return "", Which(), rest
    if fault.where is Where.FILE:  # a file name may have colons
        if not rest:
            raise ValueError(f"{fault.where.value} is missing")
        return rest, Which(), ""
    where, _, parameters = rest.partition(":")
    which = Which()
    if fault.where in COUNTED and "#" in where:
        where, _, written = where.partition("#")
        which = _which(written)
    return _checked_where(fault, where), which, parameters


def _checked_where(fault: Fault, where: str) -> str:
    names = list(_NAMES[fault.where])
    method, blank, path = where.partition(" ")
    if fault.where is Where.REQUEST and blank and method.isupper() and path.startswith("/"):
        return where
    if not where:
        raise ValueError(f"{fault.where.value} is missing")
    if where not in names:
        near = difflib.get_close_matches(where, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}"
        raise ValueError(f"{where!r} is not a valid {fault.where.value}: {hint}")
    return where


def _which(text: str) -> Which:
    match = _WHICH.fullmatch(text)
    if match is None or (match["last"] and int(match["last"]) < int(match["first"])):
        raise ValueError(f"#{text} is not one of: {WHICH_TEXT}")
    if match["each"]:
        return Which(each=int(match["each"]))
    first = int(match["first"])
    if match["open"] is None:
        return Which(first, first)
    return Which(first, int(match["last"]) if match["last"] else None)


def _values(fault: Fault, text: str) -> dict[str, Any]:
    """Parse the parameters. Raises ValueError."""
    known = {parameter.name: parameter for parameter in fault.parameters}
    values = {name: parameter.default for name, parameter in known.items()}
    given = set()
    for number, item in enumerate(text.split(",") if text else ()):
        name, equals, value = item.partition("=")
        if not equals and number == 0 and known:
            name, value = next(iter(known)), item
        elif name not in known or not equals:
            names = f"its parameters are {', '.join(known)}" if known else "it has no parameters"
            raise ValueError(f"{item!r} is not a parameter: {names}")
        if name in given:
            raise ValueError(f"{name} is repeated")
        try:
            values[name] = known[name].convert(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        given.add(name)
    missing = [name for name, parameter in known.items() if parameter.required and name not in given]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return values
