"""Which ASGI server takes uploads faster: granian or uvicorn, in turns (A/B/A/B), with the bundled server's own app.

Run: python benchmarks/asgi_servers.py [--mib 512] [--turns 5] [--where DIR]. uvicorn is no dependency: install it for
the run. Files go to memory by default (/dev/shm): on a slow disk both servers only wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server_stub"))

BLOCK = b"\xa5" * (1 << 20)
MEMORY = Path("/dev/shm")
SERVERS = ("granian", "uvicorn")


def serve(kind: str, root: Path) -> None:
    from uploader_server.config import ServerConfig

    config = ServerConfig(port=0, root=root)
    if kind == "granian":
        from uploader_server.serving import serve as serve_granian

        serve_granian(config, lambda url, _: print("ready", url, flush=True))
        return
    import uvicorn

    from uploader_server.app import create_app
    from uploader_server.serving import listen, url_of

    app = create_app(config)
    listener = listen(config)
    print("ready", url_of(listener), flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    asyncio.run(server.serve([listener]))
    app.close()


def upload(url: str, mib: int) -> float:
    """Seconds from the first byte of a batch to its answer."""
    host, port = re.match(r"http://([^:]+):(\d+)", url).groups()
    body = json.dumps({"category": "personal", "expectedFiles": 1}).encode()
    request = urllib.request.Request(f"{url}/api/upload/session", body, {"content-type": "application/json"})
    session = json.load(urllib.request.urlopen(request))["sessionId"]
    text = "".join(
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("sessionId", session), ("category", "personal"))
    )
    head = f'{text}--B\r\nContent-Disposition: form-data; name="files"; filename="x.bin"\r\n\r\n'.encode()
    tail = b"\r\n--B--\r\n"
    length = len(head) + mib * len(BLOCK) + len(tail)
    with socket.create_connection((host, int(port))) as connection:
        start = time.perf_counter()
        connection.sendall(
            f"POST /api/upload/batch HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n"
            "Content-Type: multipart/form-data; boundary=B\r\n\r\n".encode()
        )
        connection.sendall(head)
        for _ in range(mib):
            connection.sendall(BLOCK)
        connection.sendall(tail)
        answer = connection.recv(65536)
        seconds = time.perf_counter() - start
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(answer.decode())
    return seconds


def measure(kind: str, mib: int, where: Path) -> tuple[float, float]:
    """MiB a second, and the server's peak of resident memory in MiB (0 where /proc has none)."""
    root = tempfile.mkdtemp(dir=where)
    command = [sys.executable, __file__, "--serve", kind, "--where", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split()[1]
            seconds = upload(url, mib)
            status = Path(f"/proc/{server.pid}/status")
            peak = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
        finally:
            server.terminate()
    shutil.rmtree(root)
    return mib / seconds, int(peak[1]) / 1024 if peak else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--where", type=Path, default=MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir()))
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.where)
        return
    rates: dict[str, list[float]] = {kind: [] for kind in SERVERS}
    for _ in range(options.turns):
        for kind in SERVERS:
            rate, peak = measure(kind, options.mib, options.where)
            rates[kind].append(rate)
            print(f"{kind:8} {rate:7.0f} MiB/s, peak {peak:.0f} MiB of memory", flush=True)
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    for kind, median in medians.items():
        print(f"{kind}: median {median:.0f} MiB/s of {options.turns} uploads of {options.mib} MiB")
    print(f"ratio granian / uvicorn: {medians['granian'] / medians['uvicorn']:.2f}")


if __name__ == "__main__":
    main()
