"""`--shard`: `3/4` is the third of four runs; `auto` reads the variables of the scheduler.

GitLab counts from 1 and gives the total; a SLURM array has its own first number, step and total; Kubernetes counts
from 0 and does not give a pod the total.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from uploader_cli.settings.values import Invalid

_FORM = re.compile(r"auto|(?:auto|[0-9]{1,9})/[0-9]{1,9}")
_HOW = "write --shard 3/4 for the third of four runs, or --shard auto in a job array"


class _Scheduler(NamedTuple):
    """The variables with the run's own index, the total, the first index (else `base`) and the step."""

    name: str
    own: str
    total: str = ""
    base: int = 0
    first: str = ""
    step: str = ""


_SCHEDULERS = (
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX"),
    _Scheduler(
        "SLURM", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", 0, "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"
    ),
    _Scheduler("GitLab", "CI_NODE_INDEX", "CI_NODE_TOTAL", base=1),
)


def parse(raw: object) -> str | None:
    """Parse `I/N` with I from 1 to N, `auto`, or `auto/N`; none is None. Raises `Invalid`."""
    if raw == "none":
        return None
    written = raw.strip() if isinstance(raw, str) else ""
    if not _FORM.fullmatch(written):
        raise Invalid(f"must be I/N, auto or auto/N, not {raw!r}", hint=_HOW)
    index, _, count = written.partition("/")
    if count and int(count) < 1:
        raise Invalid("must be of at least 1 run", hint=_HOW)
    if index == "auto":
        return f"auto/{int(count)}" if count else "auto"
    if not 1 <= int(index) <= int(count):
        raise Invalid(
            f"must be from 1/{int(count)} to {int(count)}/{int(count)}, not {raw!r}", hint="counting starts at 1"
        )
    return f"{int(index)}/{int(count)}"


def resolved(shard: str, env: Mapping[str, str]) -> str:
    """Return `shard` as `I/N`, resolving `auto` by the scheduler's variables. Raises `Invalid`."""
    index, _, count = shard.partition("/")
    if index != "auto":
        return shard
    found = [scheduler for scheduler in _SCHEDULERS if env.get(scheduler.own)]
    if not found:
        names = ", ".join(scheduler.own for scheduler in _SCHEDULERS)
        raise Invalid(f"auto finds no job array: none of {names} is set", hint=_HOW)
    if len(found) > 1:
        both = " and ".join(scheduler.own for scheduler in found)
        raise Invalid(f"auto is ambiguous: {both} are set", hint="write --shard I/N with the right variable")
    return _of(found[0], int(count) if count else None, env)


def _of(scheduler: _Scheduler, given: int | None, env: Mapping[str, str]) -> str:
    total = _number(env, scheduler.total)
    count = given or total
    if count is None:
        where = f"{scheduler.total} is not set" if scheduler.total else f"{scheduler.name} does not set it"
        raise Invalid(f"auto can't determine the number of runs: {where}", hint="write --shard auto/N for N runs")
    if total and total != count:
        raise Invalid(f"auto/{count} contradicts {scheduler.total}={total}", hint="write --shard auto")
    first = _number(env, scheduler.first) or scheduler.base
    step = _number(env, scheduler.step) or 1
    number = _number(env, scheduler.own) or 0
    index, odd = divmod(number - first, step)
    if odd or not 0 <= index < count:
        steps = f" in steps of {step}" if step > 1 else ""
        words = f"{scheduler.own}={number} is not one of the {count} indexes from {first}{steps}"
        raise Invalid(f"auto can't determine the index of this run: {words}", hint="write --shard I/N")
    return f"{index + 1}/{count}"


def _number(env: Mapping[str, str], name: str) -> int | None:
    """Return the variable's value, None if it is not set."""
    raw = env.get(name, "")
    if raw and not (raw.isascii() and raw.isdigit()):
        raise Invalid(f"auto: {name}={raw!r} is not a number", hint="write --shard I/N")
    return int(raw) if raw else None
