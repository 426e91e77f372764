"""The metadata of `--metadata` for one file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import utf8
from uploader_cli.settings.values import FIELD
from uploader_cli.transfer.bodies import content_type, hash_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings.values import Metadata


def metadata_of(file: LocalFile, templates: Iterable[Metadata], check: Callable[[], None]) -> dict[str, str]:
    """Return the value of each key: that of the list, else of the template. `check` raises to stop a long read."""
    listed = dict(file.metadata)
    return {
        item.name: listed[item.name]
        if item.name in listed
        else FIELD.sub(lambda match: _field(file, match[1], check), item.template or "")
        for item in templates
    }


def _field(file: LocalFile, name: str, check: Callable[[], None]) -> str:
    stem, dot, ext = file.name.rpartition(".")
    match name:
        case "path":
            return utf8(file.relative_path)
        case "name":
            return utf8(file.name)
        case "stem":
            return utf8(stem if dot and stem else file.name)
        case "ext":
            return utf8(ext if dot and stem else "")
        case "type":
            return content_type(file.name)
        case "size":
            return str(file.size)
        case "sha256":
            return file.sha256 or hash_range(file, 0, file.size, "sha256", check=check).hex()
    return datetime.fromtimestamp(file.mtime_ns / 1e9, UTC).date().isoformat()  # date
