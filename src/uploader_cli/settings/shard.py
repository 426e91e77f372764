"""`--shard`: `3/4` is the third of four runs; `auto` reads the variables of the scheduler.

GitLab counts from 1 and gives the total; a SLURM array has its own first number, step and total; Kubernetes counts
from 0 and does not give a pod the total.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.settings.values import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORM = re.compile(r"(?P<index>auto|[0-9]{1,9})(?:/(?P<count>[0-9]{1,9}))?", re.ASCII)
_HOW = "write --shard 3/4 for the third of four runs, or --shard auto in a job array"


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """The variables with the run's index, the total, the first index (else `base`) and the step."""

    name: str
    index: str
    count: str | None
    base: int
    first: str | None = None
    step: str | None = None


_SCHEDULERS = (
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX", None, 0),
    _Scheduler(
        "SLURM", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", 0, "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"
    ),
    _Scheduler("GitLab", "CI_NODE_INDEX", "CI_NODE_TOTAL", 1),
)


def parse(raw: object) -> str | None:
    """Parse `I/N` with I from 1 to N, `auto`, `auto/N`, or `none`. Raises `Invalid`."""
    if raw == "none":
        return None
    found = _FORM.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if found is None or (found["index"] != "auto" and found["count"] is None):
        raise Invalid(f"must be I/N, auto or auto/N, not {raw!r}", hint=_HOW)
    if found["index"] == "auto":
        return "auto" if found["count"] is None else _checked_count(f"auto/{int(found['count'])}", int(found["count"]))
    index, count = int(found["index"]), int(found["count"])
    _checked_count("", count)
    if not 1 <= index <= count:
        raise Invalid(f"must be from 1/{count} to {count}/{count}, not {raw!r}", hint="counting starts at 1")
    return f"{index}/{count}"


def placed(shard: str, env: Mapping[str, str]) -> str:
    """Return `shard` as `I/N`, resolving `auto` by the scheduler's variables. Raises `Invalid`."""
    word, _, said = shard.partition("/")
    if word != "auto":
        return shard
    found = [scheduler for scheduler in _SCHEDULERS if env.get(scheduler.index)]
    if not found:
        names = ", ".join(scheduler.index for scheduler in _SCHEDULERS)
        raise Invalid(f"auto finds no job array: none of {names} is set", hint=_HOW)
    if len(found) > 1:
        both = " and ".join(scheduler.index for scheduler in found)
        raise Invalid(f"auto is ambiguous: {both} are set", hint="write --shard I/N with the right variable")
    return _of(found[0], int(said) if said else None, env)


def _of(scheduler: _Scheduler, said: int | None, env: Mapping[str, str]) -> str:
    total = _number(env, scheduler.count) if scheduler.count else None
    count = said or total
    if count is None:
        where = f"{scheduler.count} is not set" if scheduler.count else f"{scheduler.name} does not set it"
        raise Invalid(f"auto can't determine the number of runs: {where}", hint="write --shard auto/N for N runs")
    if said and total and said != total:
        raise Invalid(f"auto/{said} contradicts {scheduler.count}={total}", hint="write --shard auto")
    first = (_number(env, scheduler.first) if scheduler.first else None) or scheduler.base
    step = (_number(env, scheduler.step) if scheduler.step else None) or 1
    number = _number(env, scheduler.index) or 0
    index, odd = divmod(number - first, step)
    if odd or not 0 <= index < count:
        words = f"{scheduler.index}={number} is not one of the {count} indexes from {first}" + (
            f" in steps of {step}" if step > 1 else ""
        )
        raise Invalid(f"auto can't determine the index of this run: {words}", hint="write --shard I/N")
    return f"{index + 1}/{count}"


def _number(env: Mapping[str, str], name: str) -> int | None:
    """Return the variable's value, None if it is not set."""
    raw = env.get(name, "")
    if raw and not (raw.isascii() and raw.isdigit()):
        raise Invalid(f"auto: {name}={raw!r} is not a number", hint="write --shard I/N")
    return int(raw) if raw else None


def _checked_count(form: str, count: int) -> str:
    if count < 1:
        raise Invalid("must be of at least 1 run", hint=_HOW)
    return form
