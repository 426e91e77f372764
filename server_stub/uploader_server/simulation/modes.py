"""The faults of Socket.IO and of analyses that last: their names and how they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from uploader_server.simulation.stages import STAGES

_MODE = re.compile(
    r"(?P<kind>up|off|refuse|hang)|(?P<timed>flap|kill-after|kick|freeze):(?P<seconds>\d+(\.\d+)?)", re.ASCII
)


@dataclass(frozen=True)
class RealtimeMode:
    """A fault of one or both Socket.IO transports: `up` is none, for the others see `table`."""

    kind: Literal["up", "off", "refuse", "hang", "flap", "kill-after", "kick", "freeze"] = "up"
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str | None) -> RealtimeMode:
        """Parse `off`, `hang`, `refuse`, or `flap`, `kill-after`, `kick`, `freeze` with `:SECONDS`; None is `up`.

        Raises ValueError with the allowed values.
        """
        if text is None:
            return cls()
        match = _MODE.fullmatch(text)
        if match is None or (match["seconds"] and not float(match["seconds"])):
            raise ValueError(
                f"{text!r} is not one of off, hang, refuse, flap:SECONDS, kill-after:SECONDS, kick:SECONDS,"
                " freeze:SECONDS"
            )
        return cls(match["kind"] or match["timed"], float(match["seconds"] or 0))  # type: ignore[arg-type]


@dataclass(frozen=True)
class AnalysisMode:
    """Faults of analyses.

    - `silent`: no events are sent; the status shows the progress.
    - `hang`: the analysis stops in its first stage, without events or a response.
    - `fail:STAGE`: the stage fails with 503 (retryable).
    - `refuse:STAGE`: the stage fails with 422 (permanent).
    """

    silent: bool = False
    hang: bool = False
    stage: str = ""  # the stage that fails
    final: bool = False  # whether the failure is permanent

    @classmethod
    def parse(cls, text: str | None) -> AnalysisMode:
        """Parse these words, separated by commas; None: no fault. Raises ValueError with the allowed values."""
        mode = cls()
        for word in [] if text is None else text.split(","):
            kind, _, stage = word.strip().partition(":")
            fails = kind in {"fail", "refuse"} and stage in STAGES and not mode.stage
            if not fails and word.strip() not in {"silent", "hang"}:
                stages = ", ".join(STAGES)
                raise ValueError(f"{word!r} is not one of silent, hang, fail:STAGE, refuse:STAGE (stages: {stages})")
            mode = mode.with_fault(kind, stage)
        return mode

    def with_fault(self, kind: str, stage: str) -> AnalysisMode:
        """Return this mode with one more fault; `stage` is that of `fail` or `refuse`."""
        if stage:
            return replace(self, stage=stage, final=kind == "refuse")
        return replace(self, silent=self.silent or kind == "silent", hang=self.hang or kind == "hang")
