"""How many calls a session takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import local_files

from uploader_cli.core.capabilities import CONCATENATION, CREATION_WITH_UPLOAD, LARGE, Capabilities
from uploader_cli.core.plan import ASSUMED, MIB, Limits
from uploader_cli.plan.forecast import Forecast

BUNDLED = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)
TUS = Capabilities("http://h/files/", extensions=frozenset({CREATION_WITH_UPLOAD, CONCATENATION}))
PLAIN = replace(TUS, extensions=frozenset())
BATCH = Forecast(BUNDLED, None, metered=False, sessions=True, chunk_size=8 * MIB, jobs=4)
REFERENCE = replace(BATCH, limits=ASSUMED, metered=True)
RESUMABLE = replace(BATCH, tus=TUS)
ENDPOINT = replace(RESUMABLE, sessions=False, tus=PLAIN, limits=replace(BUNDLED, relative_paths=False))


@pytest.mark.parametrize(
    ("forecast", "files", "calls"),
    [
        # the session, one request
        (REFERENCE, "a.mp4 b.mp4 c.mp4", 2),
        (BATCH, "a.mp4 b.mp4 c.mp4", 2),
        # what should arrive in 150 s; what is not metered goes in small requests
        (REFERENCE, f"a.mp4={100 * MIB} b.mp4={100 * MIB}", 3),
        (BATCH, " ".join(f"{number}.mp4" for number in range(33)), 4),
        # a creation that carries all, or the creation and its chunks
        (RESUMABLE, "a.mp4 b.mp4=0", 3),
        (RESUMABLE, f"a.mp4={8 * MIB}", 2),
        (RESUMABLE, f"a.mp4={8 * MIB + 1}", 4),
        (ENDPOINT, "a.mp4", 2),
        (ENDPOINT, "a.mp4=0", 2),
        # parts, where workers are idle and the server can join them
        (RESUMABLE, f"a.mp4={LARGE}", 1 + 4 * 9 + 1),
        (RESUMABLE, f"a.mp4={LARGE} b.mp4 c.mp4 d.mp4", 1 + 33 + 3),
        (ENDPOINT, f"a.mp4={LARGE}", 33),
        # a look at each before, and at each after
        (replace(RESUMABLE, look=True), "a.mp4 b.mp4", 5),
        (replace(RESUMABLE, verify=True), "a.mp4 b.mp4", 5),
        (replace(REFERENCE, verify=True, look=True), "a.mp4 b.mp4", 6),
    ],
)
def test_forecast_of_calls(forecast: Forecast, files: str, calls: int) -> None:
    assert forecast.calls(local_files(files)) == calls
