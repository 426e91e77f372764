"""Makes the pictures of the report page from a real run: `python docs/report_pictures.py`. Needs Chromium.

The run sends 400 files through a server that limits the rate once, refuses a type and loses files.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from uploader_server.config import ServerConfig
from uploader_server.faults import Answer
from uploader_server.serving import EmbeddedServer

HERE = Path(__file__).resolve().parent / "pictures"
SHOTS = {"run": ("1100,1330", 1), "run-dark": ("1100,1330", 0), "run-phone": ("500,1400", 1)}
"""The size of the window, and its colours: 0 dark, 1 light."""


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        page = Path(home, "run.html")
        _run(Path(home), page)
        for name, (size, scheme) in SHOTS.items():
            look = [f"--window-size={size}", f"--blink-settings=preferredColorScheme={scheme}"]
            command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *look]
            subprocess.run([*command, f"--screenshot={HERE / name}.png", page.as_uri()], check=True)


def _run(home: Path, page: Path) -> None:
    chance = random.Random(7)
    for number in range(400):
        kind = "part" if number % 40 == 7 else "lost.mp4" if number % 100 == 33 else "mp4"
        file = home / "videos" / f"2026-{number % 12 + 1:02d}" / f"clip-{number:03d}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(int(chance.lognormvariate(11.8, 1.4))))
    (home / "videos" / "2026-06" / "race.mp4").write_bytes(chance.randbytes(30_000_000))
    (home / "list.txt").write_text("".join(f"{file.relative_to(home)}\n" for file in sorted(home.glob("videos/*/*"))))
    config = ServerConfig(types=("mp4",), fail_files=("*lost*",), packs=False)
    with EmbeddedServer(config) as server:
        server.faults.next_answers("POST", "/api/upload/files/", [None] * 150 + [Answer(429, {"Retry-After": "4"})] * 3)
        line = ["uploader", "upload", "-s", server.url, "--from-file", "list.txt", "--limit-rate", "7M", "-j", "6"]
        environment = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run([*line, "-q", "--report", str(page)], cwd=home, env=environment, check=False)


if __name__ == "__main__":
    main()
