"""Parsing and matching of fault rules: `KIND[:FIELD[#WHICH]][:PARAMETERS]`."""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import dataclass
from typing import Any

from uploader_server.simulation.table import COUNTED, FAULTS, GLOBS, NAMES, WHICH_TEXT, Fault

Which = tuple[int, int | None, int]
"""The matches that a fault acts on, counted from 1: the first, the last (None: no limit), and each n-th of these."""
_ALL: Which = (1, None, 1)
_WHICH = re.compile(r"/(?P<each>[1-9]\d{0,8})|(?P<first>[1-9]\d{0,8})(?P<open>-(?P<last>\d{1,9})?)?")


class RuleError(ValueError):
    """An invalid rule; the message has the rule, the error and the correct form."""


@dataclass
class Rule:
    text: str
    fault: Fault
    target: str  # the second field: the name of the affected requests or events, for example
    which: Which
    values: dict[str, Any]  # parameters by name, with defaults
    seen: int = 0  # number of matches
    hits: int = 0  # number of matches that the fault acted on

    @property
    def kind(self) -> str:
        return self.fault.kind

    def count(self) -> bool:
        """Count a match; return whether the fault acts on it."""
        self.seen += 1
        first, last, each = self.which
        hit = self.seen >= first and (last is None or self.seen <= last) and self.seen % each == 0
        self.hits += hit
        return hit

    def concerns(self, field: str, *names: str) -> bool:
        """Return whether the rule matches this REQUEST (method and path) or EVENT (name)."""
        if self.fault.field != field:
            return False
        globs = GLOBS.get(self.target) or self.target.split(" ", 1)
        return all(map(fnmatch.fnmatchcase, names, globs))


def parse_rule(text: str) -> Rule:
    kind, _, rest = text.partition(":")
    fault = FAULTS.get(kind)
    if fault is None:
        near = difflib.get_close_matches(kind, FAULTS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RuleError(f"{text!r}: there is no fault {kind!r}{hint} (--list-faults shows all)")
    try:
        target, which, parameters = _fields(fault, rest)
        return Rule(text, fault, target, which, _values(fault, parameters))
    except ValueError as error:
        raise RuleError(f"{text!r}: {error}; write {fault.form}, for example {fault.example}") from None


def parse_short(text: str, *rules: str) -> list[Rule]:
    """Parse the `rules` of which `text` has the short forms. Raises ValueError with all forms."""
    try:
        return [parse_rule(rule) for rule in rules]
    except RuleError:
        group = rules[0].partition("-")[0] + "-"
        forms = [fault.form.removeprefix(group) for fault in FAULTS.values() if fault.kind.startswith(group)]
        known = ", ".join(forms).replace(":SOCKET", "")
        raise ValueError(f"{text!r} is not one of {known} (--list-faults describes them)") from None


def _fields(fault: Fault, rest: str) -> tuple[str, Which, str]:
    """Split the second field, WHICH and the parameters. Raises ValueError."""
    if not fault.field:
        return "", _ALL, rest
    if not rest:
        raise ValueError(f"{fault.field} is missing")
    if fault.field == "GLOB":  # a file name may have colons
        return rest, _ALL, ""
    target, _, parameters = rest.partition(":")
    which = _ALL
    if fault.field in COUNTED and "#" in target:
        target, _, written = target.partition("#")
        which = _which(written)
    _check_target(fault.field, target)
    return target, which, parameters


def _check_target(field: str, target: str) -> None:
    method, blank, path = target.partition(" ")
    if field == "REQUEST" and blank and method.isupper() and path.startswith("/"):
        return
    if not target:
        raise ValueError(f"{field} is missing")
    if target not in NAMES[field]:
        near = difflib.get_close_matches(target, NAMES[field], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(NAMES[field])}"
        raise ValueError(f"{target!r} is not a valid {field}: {hint}")


def _which(text: str) -> Which:
    match = _WHICH.fullmatch(text)
    if match is None or (match["last"] and int(match["last"]) < int(match["first"])):
        raise ValueError(f"#{text} is not one of: {WHICH_TEXT}")
    if match["each"]:
        return 1, None, int(match["each"])
    last = match["last"] if match["open"] else match["first"]
    return int(match["first"]), int(last) if last else None, 1


def _values(fault: Fault, text: str) -> dict[str, Any]:
    known = {parameter.name: parameter for parameter in fault.parameters}
    given: dict[str, Any] = {}
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
            given[name] = known[name].parse(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    missing = [name for name, parameter in known.items() if parameter.required and name not in given]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return {name: parameter.default for name, parameter in known.items()} | given
