"""The file for the analyses of a run: one JSON object, written atomically."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.protocol import JsonObject
    from uploader_cli.core.stages import Kind
    from uploader_cli.run.analysis import Subject


class AnalysisFile:
    """Collects the results and writes them once at the end, if there are any."""

    def __init__(self, where: Path | None, run_id: str, server: str) -> None:
        """`where` is a file or an existing directory; None for the working directory."""
        name = f"uploader-analysis-{run_id}.json"
        self.path = Path(name) if where is None else where / name if where.is_dir() else where
        self._head: dict[str, Any] = {"v": 1, "run": run_id, "server": server}
        self._analyses: list[dict[str, Any]] = []

    @staticmethod
    def check(where: Path | None) -> None:
        """Raise `UsageError` if the file can't be written, before anything is sent."""
        directory = Path() if where is None else where if where.is_dir() else where.parent
        if not directory.is_dir():
            raise UsageError(f"--analysis-to: {directory} is not a directory", hint="create it or give another path")
        if not os.access(directory, os.W_OK):
            shown = directory.absolute()
            raise UsageError(
                f"the analysis can't be saved: {shown} is not writable", hint="give another path with --analysis-to"
            )

    def add(
        self, kind: Kind, subjects: Sequence[Subject], seconds: float, result: JsonObject | None, error: str
    ) -> None:
        """Add a finished analysis with its result or error; `seconds` is its duration."""
        self._analyses.append(
            {
                "kind": str(kind),
                "files": [asdict(subject) for subject in subjects],
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                "seconds": round(seconds, 3),
                "error": error or None,
                "result": result,
            }
        )

    def write(self) -> Path | None:
        """Save the results; return None if there are none. Raises OSError."""
        if not any(item["result"] is not None for item in self._analyses):
            return None
        made = self.path.with_name(f".{self.path.name}.{self._head['run']}")
        try:
            with made.open("x", encoding="utf-8", errors="backslashreplace") as file:
                json.dump({**self._head, "analyses": self._analyses}, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            made.replace(self.path)
        finally:
            made.unlink(missing_ok=True)
        return self.path.absolute()
