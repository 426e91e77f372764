"""How long `check` waits for digests that a server computes."""

from __future__ import annotations

import hashlib
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock

from uploader_cli.core.packs import FoundFile, LookedUp, LookupOffer
from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import DigestPending
from uploader_cli.features.check.comparison import Comparison
from uploader_cli.features.check.events import CheckResult
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_WAIT = 60.0
DATA = b"data"
FILES = 5


class SlowServer:
    """Computes the digest of one more file, up to `most`, within `seconds` of each call."""

    def __init__(self, clock: Clock, seconds: float, most: int) -> None:
        self._clock, self._seconds, self._most = clock, seconds, most
        self._known: list[LookedUp] = []
        self.calls = 0
        stop = SimpleNamespace(checkpoint=lambda: None, sleep=clock.pass_, set=lambda: None)
        self.pacer = SimpleNamespace(stop=stop, retries=0)

    def another(self) -> SlowServer:
        return self

    def lookup(self, _offer: LookupOffer, files: Sequence[LookedUp], **_: Any) -> list[FoundFile]:
        self.calls += 1
        self._clock.pass_(self._seconds)
        for file in files:
            if file not in self._known and len(self._known) < min(self.calls, self._most):
                self._known.append(file)
        sha256 = hashlib.sha256(DATA).hexdigest()
        known = [file in self._known for file in files]
        return [FoundFile(len(DATA), sha256 if done else None, None, pending=not done) for done in known]

    def shut(self) -> None:
        """Do nothing: there is no connection."""

    close = shut


@pytest.mark.parametrize(("most", "calls"), [(FILES, 5), (2, 5), (0, 4)])
def test_digests_are_waited_for_while_there_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, calls: int
) -> None:
    """Each call takes less than --max-wait, and all of them together take more."""
    clock = Clock()
    monkeypatch.setattr("uploader_cli.transfer.stored_files.time", SimpleNamespace(monotonic=clock))
    server = SlowServer(clock, 0.7 * MAX_WAIT, most)
    files = []
    for number in range(FILES):
        path = tmp_path / str(number)
        path.write_bytes(DATA)
        files.append(LocalFile(number, str(path), path.name, len(DATA), path.stat().st_mtime_ns))
    offer, settings = LookupOffer("/lookup", 10), Settings(server="http://h", max_wait=MAX_WAIT, jobs=1)
    api: Any = server
    with closing(Comparison(api, offer, settings, None, lambda *_: None)) as comparison:
        if most == FILES:
            results = [result.result for result in comparison.results(files)]  # type: ignore[union-attr]
            assert results == [CheckResult.SAME] * FILES
        else:
            with pytest.raises(DigestPending, match="the server computed no digest for 60 s"):
                list(comparison.results(files))
    assert server.calls == calls
