"""Parse what servers say of analyses (docs/protocol.md section 4). No shape is trusted."""

from __future__ import annotations

from uploader_cli.core.protocol import JsonObject, as_object, number, text
from uploader_cli.core.record import Record
from uploader_cli.features.analysis.events import AnalysisMessage

MOST_WORDS = 500  # maximum characters kept of an analysis message


def parse_analysis(body: object, *, failed: bool = False) -> AnalysisMessage | None:
    """Parse an `analysis:progress` message, or with `failed` an `analysis:error`; None if it is neither."""
    fields = as_object(body)
    percent = number(fields.get("progress"))
    message = " ".join((text(fields.get("message")) or "")[:MOST_WORDS].split())
    if not failed and percent is None and not message:
        return None
    return AnalysisMessage(percent, message, failed=failed)


class AnalysisStatus(Record, frozen=True):
    """The status of an analysis: whether it runs, its last message, and its result if the server keeps it."""

    running: bool
    message: AnalysisMessage | None
    data: JsonObject | None = None


def parse_analysis_status(body: object) -> AnalysisStatus:
    """Parse the response to `GET /api/ai/analysis/{id}/status`: the fields of an event, in the body or in `data`.

    The bundled server has the result of a completed analysis in `data`.
    """
    fields = as_object(body)
    data = as_object(fields.get("data"))
    fields = fields if "progress" in fields else data
    status = text(fields.get("status")) or ""
    message = parse_analysis(fields, failed=status in ("failed", "error"))
    result = data if status == "completed" and data and data is not fields else None
    return AnalysisStatus(status in ("running", "processing", "pending"), message, result)


def analysis_data(body: object) -> JsonObject | None:
    """Return `data` of `{success, data:{analysisId, …, finalReport}}` (docs/protocol.md section 4), else None."""
    fields = as_object(body)
    data = fields.get("data")
    return data if fields.get("success") is True and isinstance(data, dict) else None
