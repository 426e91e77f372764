"""The three kinds of analysis, their stages, and how an analysis misbehaves on demand (docs/protocol.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """One stage: the name that events carry, the percentage at which it ends, and what it is doing."""

    name: str
    end: int
    message: str


KINDS: dict[str, tuple[Stage, ...]] = {
    "content": (
        Stage("upload", 10, "Handing the video over"),
        Stage("model-analysis", 40, "The model watches the video"),
        Stage("structuring", 70, "Structuring what was seen"),
        Stage("report", 90, "Writing the report"),
        Stage("saving", 100, "Saving the result"),
    ),
    "fusion": (
        Stage("upload", 10, "Handing the videos over"),
        Stage("video-1", 25, "The model watches the first video"),
        Stage("video-2", 40, "The model watches the second video"),
        Stage("plan", 70, "Planning the fusion"),
        Stage("timeline", 85, "Laying out the timeline"),
        Stage("saving", 100, "Saving the result"),
    ),
    "music": (
        Stage("parse", 20, "Reading the fusion plan"),
        Stage("emotion", 40, "Following the emotions"),
        Stage("instruments", 60, "Choosing instruments"),
        Stage("prompt", 85, "Writing the prompt"),
        Stage("saving", 100, "Saving the result"),
    ),
}
"""The stages of each kind in order, with the percentages of the contract."""

STAGES = tuple(dict.fromkeys(stage.name for stages in KINDS.values() for stage in stages))
STEP = 5
"""Percent between two events; every stage ends at a multiple of it."""


def stage_at(kind: str, percent: int) -> Stage:
    """The stage that works on this percentage; the end of a stage still belongs to it."""
    return next(stage for stage in KINDS[kind] if percent <= stage.end)


@dataclass(frozen=True)
class AnalysisMode:
    """How analyses misbehave.

    - `silent`: no event is sent; the work goes on, and the status tells of it.
    - `hang`: it stops for good inside its first stage: no event, no answer.
    - `fail:STAGE`: that stage fails with 503; another try may help.
    - `refuse:STAGE`: that stage fails with 422, for good.
    """

    silent: bool = False
    hang: bool = False
    stage: str = ""
    final: bool = False

    @classmethod
    def parse(cls, text: str | None) -> AnalysisMode:
        """Read the words above, several with commas between them; None means that all is well.

        Raises ValueError, with the legal values, for anything else.
        """
        silent, hang, broken, final = False, False, "", False
        for word in (text or "").split(",") if text is not None else ():
            kind, _, stage = word.strip().partition(":")
            if kind in {"fail", "refuse"} and stage in STAGES and not broken:
                broken, final = stage, kind == "refuse"
            elif word.strip() == "silent":
                silent = True
            elif word.strip() == "hang":
                hang = True
            else:
                stages = ", ".join(STAGES)
                raise ValueError(f"{word!r} is none of silent, hang, fail:STAGE, refuse:STAGE (stages: {stages})")
        return cls(silent, hang, broken, final)
