"""The kinds of analysis, their stages, and their faults (docs/protocol.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class Stage(NamedTuple):
    """One stage: its name in events, the percentage at its end, and its message."""

    name: str
    end: int
    message: str


KINDS: dict[str, tuple[Stage, ...]] = {
    "content": (
        Stage("upload", 10, "Passing the video to the model"),
        Stage("model-analysis", 40, "Analysing the video"),
        Stage("structuring", 70, "Structuring the analysis"),
        Stage("report", 90, "Writing the report"),
        Stage("saving", 100, "Saving the result"),
    ),
    "fusion": (
        Stage("upload", 10, "Passing the videos to the model"),
        Stage("video-1", 25, "Analysing the first video"),
        Stage("video-2", 40, "Analysing the second video"),
        Stage("plan", 70, "Planning the fusion"),
        Stage("timeline", 85, "Planning the timeline"),
        Stage("saving", 100, "Saving the result"),
    ),
    "music": (
        Stage("parse", 20, "Reading the fusion plan"),
        Stage("emotion", 40, "Analysing the emotions"),
        Stage("instruments", 60, "Choosing instruments"),
        Stage("prompt", 85, "Writing the prompt"),
        Stage("saving", 100, "Saving the result"),
    ),
}
"""The stages of each kind, in order."""
STAGES = tuple(dict.fromkeys(stage.name for stages in KINDS.values() for stage in stages))


def stage_at(kind: str, percent: int) -> Stage:
    """Return the stage at this percentage; stages include their end."""
    return next(stage for stage in KINDS[kind] if percent <= stage.end)


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
