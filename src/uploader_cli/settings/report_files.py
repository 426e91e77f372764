"""The values of `--report`: files, and formats of them."""

from __future__ import annotations

from uploader_cli.feature import formats
from uploader_cli.settings.spelling import lacking
from uploader_cli.settings.values import Invalid, ReportFile, path, text

_REPORTS = {"json": ".json", "csv": ".csv"}
"""The formats of reports that no feature adds, with the suffixes that select them."""


def report_suffixes() -> str:
    """Return the suffixes that select the format of a report, for a message."""
    own = [f"{one.suffix} ({one.label})" if one.label else one.suffix for _, one in formats().values()]
    *most, last = [*_REPORTS.values(), *own]
    return f"{', '.join(most)} or {last}"


def report_file(raw: object) -> ReportFile:
    """Parse `FILE`, whose suffix selects the format, or `FORMAT:FILE`."""
    written = text(raw)
    named, colon, rest = written.partition(":")
    known = _REPORTS | {name: one.suffix for name, (_, one) in formats().items()}
    kind = named if colon and named in known else ""
    file = path(rest if kind else written)
    suffix = file.suffix.lower()
    kind = kind or next((kind for kind, own in known.items() if own == suffix), "")
    if not kind:
        missing = lacking(named if colon else suffix, of="format") or lacking(suffix, of="format")
        example = next((name for name, (_, one) in formats().items() if one.label), "json")
        hint = f"use the suffix {report_suffixes()}, or name the format: {example}:FILE"
        raise Invalid(f"{written!r}: unknown report format", hint=missing or hint)
    return ReportFile(kind, file)
