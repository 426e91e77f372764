"""The kinds of analysis and their stages (docs/protocol.md, section 4)."""

from __future__ import annotations

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
