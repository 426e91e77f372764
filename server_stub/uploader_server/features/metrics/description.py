"""What `/openapi.json` tells about metrics."""

from __future__ import annotations

from uploader_server.config import ServerConfig
from uploader_server.openapi.parts import Part, call, success
from uploader_server.openapi.schemas import ALL_TYPES

RECORDS = ""


def calls(config: ServerConfig) -> dict[str, Part]:  # noqa: ARG001 - every server has them
    """Return the call by method and path."""
    return {"GET /metrics": call("Get metrics for Prometheus", success(200, ALL_TYPES["text"], "text/plain"))}
