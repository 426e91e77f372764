"""A slow test machine must not look like a fault."""

from __future__ import annotations

import pytest
from time_limits import PATIENCE

PATIENT = {
    "doctor.examination.RUN_LIMIT": 10 * PATIENCE,
    "doctor.examination.STEP_LIMIT": PATIENCE,
    "doctor.disk.SLOW_RATE": 1.0,
    "doctor.disk.SLOW_SYNC": PATIENCE,
    "doctor.server.SLOW_MS": 1000 * PATIENCE,
    "doctor.server.UNEVEN_MS": 1000 * PATIENCE,
    "doctor.transports.CONNECT_LIMIT": PATIENCE,
    "doctor.transports.PROBE_LIMIT": PATIENCE,
    "doctor.uploads.SLOW_POLL_MS": 1000 * PATIENCE,
    "checks.target.JOIN_LIMIT": PATIENCE / 2,
}
MEASURED = {
    "session_expired": ("checks.target.JOIN_LIMIT",),
    "slow": ("doctor.server.SLOW_MS", "doctor.uploads.SLOW_POLL_MS"),
    "slow_disk": ("doctor.disk.SLOW_RATE", "doctor.disk.SLOW_SYNC"),
    "stalling_disk": ("doctor.disk.SLOW_SYNC",),
}
"""The limits that troubles meet, by the names of the troubles."""


@pytest.fixture
def busy_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    callspec = getattr(request.node, "callspec", None)
    trouble = callspec.params.get("trouble") if callspec is not None else None
    for name, limit in PATIENT.items():
        if name not in MEASURED.get(getattr(trouble, "__name__", ""), ()):
            monkeypatch.setattr(f"uploader_cli.features.{name}", limit)
