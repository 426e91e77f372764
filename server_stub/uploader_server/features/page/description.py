"""What `/openapi.json` tells about the list of sessions."""

from __future__ import annotations

from uploader_server.config import ServerConfig
from uploader_server.feature import options_of
from uploader_server.features.page.page import PageOptions
from uploader_server.openapi.parts import Part, call, ok

RECORDS = """\
Activity        sessions:[SessionSummary] analyses:[AnalysisSummary] receivedBytes:count timestamp:time
SessionSummary  sessionId:id category:category overallStatus:status totalProgress:percent completedFiles:count
                failedFiles:count totalFiles:count receivedBytes:count totalBytes?:count createdAt:time endedAt?:time
                name?
AnalysisSummary ANALYSIS stages:[stage]
"""


def calls(config: ServerConfig) -> dict[str, Part]:
    """Return the calls by method and path."""
    if not options_of(config, PageOptions).ui:
        return {}
    return {"GET /api/activity": call("List the newest sessions and analyses", ok("Activity"))}
