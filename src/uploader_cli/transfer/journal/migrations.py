"""Change a journal that 1.0.0rc1 has written to this version; those between were never released."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from uploader_cli.core.protocol import UPLOADS
from uploader_cli.transfer.journal.receipts import TABLE

if TYPE_CHECKING:
    from sqlite3 import Connection

MIGRATED = 10  # the version that is changed in place
# Columns are added at the end of a table. Receipts had periods that began with runs, and columns in fewer bytes. SQLite
# calls functions of Python only with texts that are UTF-8, and a text of another program may be none.
_CHANGES = f"""
ALTER TABLE pending ADD COLUMN identity BLOB;
ALTER TABLE receipt RENAME TO packed;
{TABLE}
INSERT INTO receipt (target, path, size, mtime_ns, server_id, location, checksum, verified, completed_at)
SELECT target, path, size, mtime_ns, CASE typeof(server_id) WHEN 'blob' THEN unpacked(server_id) ELSE server_id END,
  CASE typeof(location) WHEN 'blob' THEN lengthened(location, CAST(path AS BLOB)) ELSE location END,
  CASE typeof(checksum) WHEN 'blob' THEN unpacked(checksum) ELSE checksum END, verified, completed_at
FROM packed ORDER BY period, completed_at;
WITH counted AS MATERIALIZED (SELECT period, count(*) AS receipts FROM packed GROUP BY period)
UPDATE run SET since = coalesce((SELECT sum(receipts) FROM counted WHERE period <= since), 0);
DROP TABLE packed;
DROP TABLE period;
"""  # noqa: S608 - our own
_shortened = re.compile(r"(\d{1,9})([ /])(.*)", re.DOTALL).fullmatch


def changes(db: Connection) -> str:
    """Return the statements that make a journal of version `MIGRATED` one of this version."""
    db.create_function("unpacked", 1, _unpacked)
    db.create_function("lengthened", 2, _lengthened)
    return _CHANGES


def _unpacked(value: bytes) -> str:
    """Return the text of hex digits or of a UUID in half their bytes."""
    digits = value[1:].hex()
    return digits if value[:1] == b"h" else f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _lengthened(location: bytes, key: bytes) -> str | bytes:
    """Return a location that was written without the path of its file at the end; another one as it is.

    It was written as the length of that path, a mark, and the prefix; the mark "/" stands for the prefix `UPLOADS`.
    """
    known = _shortened(location.decode(errors="replace"))
    if known is None:
        return location
    digits, mark, prefix = known.groups()
    return (UPLOADS if mark == "/" else "") + prefix + quote(key.partition(b"\0")[0][-int(digits) :])
