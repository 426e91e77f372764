"""The journal that 1.0.0rc1 has written, as SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_RECORDED = Path(__file__).with_name("journal_of_1.0.0rc1.sql")
_TABLES = ("target", "run", "pending", "session")


def recorded(path: Path) -> None:
    """Write the journal to `path`.

    Run `a` to http://here:1, category personal, was killed. Of its files /data/whole, /data/parts and /data/waits are
    in progress; /data/sub/a b.jpg, /data/ü.bin, /data/c, /data/d and /data/e are stored. /data/zero is of an earlier
    run. Run `b` has failed.
    """
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_RECORDED.read_text(encoding="utf-8"))


def downgrade(path: Path) -> None:
    """Make the journal at `path` one of 1.0.0rc1, with the same runs and uploads, and without receipts."""
    new = path.with_name("new.sqlite3")
    path.rename(new)
    recorded(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("ATTACH ? AS new", (str(new),))
        with db:
            db.execute("DELETE FROM receipt")
            for table in _TABLES:
                columns = ", ".join(name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})"))
                db.execute(f"DELETE FROM main.{table}")
                db.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
            db.execute("UPDATE run SET since = 0")
    new.unlink()
