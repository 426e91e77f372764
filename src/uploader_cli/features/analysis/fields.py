"""What the result of a run says of its analyses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Analysed:
    """A finished analysis of the files `name`: a summary of its result, or the error and the warning about it."""

    kind: str
    name: str
    summary: str = ""
    error: str = ""
    retryable: bool = False
    warning: str = ""


RESULT_FIELDS = {"Result": (("analyses", tuple[Analysed, ...], ()), ("analysis_file", str, ""))}
"""The outcomes of the analyses, in order, and the file with their results; empty without analyses."""
