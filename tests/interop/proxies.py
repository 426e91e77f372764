"""nginx, haproxy, tinyproxy and Redis from Debian, each in its own process on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from serving import free_port
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NGINX = """
{user}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {http}
}}
"""
SERVER = """
map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
server {
  listen 127.0.0.1:{port};
  %s
}
"""
FORWARD = """
proxy_http_version 1.1;
proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
"""
"""Directives that pass on the host with its port, and websockets."""


def stock_nginx(directory: Path, upstream: str, extra: str = "") -> contextlib.AbstractContextManager[str]:
    """Run nginx in front of `upstream`, with its default limits and the directives `extra`; yield its URL."""
    return nginx(directory, f"{extra}\nlocation / {{ proxy_pass {upstream}; {FORWARD} }}")


def nginx(directory: Path, server: str) -> contextlib.AbstractContextManager[str]:
    """Run nginx with the directives of one `server` block, without `listen`; yield its URL."""
    return nginx_http(directory, SERVER % server)


@contextlib.contextmanager
def nginx_http(directory: Path, http: str) -> Iterator[str]:
    """Run nginx with the content of an `http` block, where `{port}` is the port to listen on; yield its URL."""
    user = "user root;" if os.geteuid() == 0 else ""
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(user=user, directory=directory, http=http.replace("{port}", str(port))))
    with running(["nginx", "-e", f"{directory}/nginx.log", "-c", str(config)], port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def haproxy(directory: Path, config: str) -> Iterator[str]:
    """Run haproxy with `config`, where `{port}` is the port to bind; yield its URL."""
    port = free_port()
    file = directory / "haproxy.cfg"
    file.write_text(config.replace("{port}", str(port)))
    with running(["haproxy", "-db", "-f", str(file)], port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def tinyproxy(directory: Path, *directives: str) -> Iterator[str]:
    """Run a forward proxy with additional directives; yield its address, HOST:PORT."""
    port = free_port()
    file = directory / "tinyproxy.conf"
    basic = (f"Port {port}", "Listen 127.0.0.1", "Timeout 600", f'LogFile "{directory}/tinyproxy.log"', "LogLevel Info")
    file.write_text("\n".join((*basic, *directives, "")))
    with running(["tinyproxy", "-d", "-c", str(file)], port):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[str]:
    """Run a Redis server that keeps its data in memory; yield its URL."""
    port = free_port()
    options = {"port": str(port), "bind": "127.0.0.1", "dir": str(directory), "save": ""}
    command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]
    with running(command, port):
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def running(command: list[str], port: int, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program that listens on `port`; `how` are further arguments of `Popen`. Yield its process."""
    if shutil.which(command[0]) is None:
        pytest.fail(f"the test needs {command[0]} in PATH (Debian: apt-get install {command[0]})", pytrace=False)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    try:
        _wait_for(process, port)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_for(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"{process.args!r} did not start: {process.communicate()[0]!r}") from None
            time.sleep(0.02)
