"""What happens to a file after it was sent: its comparison with what is stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from uploader_cli import Settings
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.packs import FoundFile
from uploader_cli.core.plan import LocalFile
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.stations import compared

if TYPE_CHECKING:
    from pathlib import Path


def test_file_that_vanished_before_its_comparison_fails_as_vanished(tmp_path: Path) -> None:
    """Bytes after a break are compared also without --verify; a file that is gone shows nothing of what is stored."""
    there = FoundFile(5, "0" * 64, None)
    pacer = SimpleNamespace(call=lambda step: step())
    api: Any = SimpleNamespace(pacer=pacer, stored=lambda _location, patient: there)
    context: Any = SimpleNamespace(settings=Settings(), stop=SimpleNamespace(checkpoint=lambda: None))
    gone = FileResult(LocalFile(0, str(tmp_path / "gone"), "gone", 5, 0), location="/uploads/gone", continued=True)
    error = compared(context, api, gone).error
    assert error is not None
    assert error.code is FailureCode.VANISHED
