"""Calls by `requests`: servers are judged with the client that most people have, and not with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from uploader_cli.settings import Settings
from uploader_cli.transfer.bodies import Body
from uploader_cli.transfer.by_urllib3 import as_ours, decoded
from uploader_cli.transfer.connection import Fields, intact
from uploader_cli.transfer.dialler import Route
from uploader_cli.transfer.http_client import ANSWER_BLOCK, HttpClient, Received

PIECE = 1 << 20  # bytes read of a body at a time


class CommonClient(HttpClient):
    """A client whose requests, and the answers to them, are those of `requests` and its connections.

    It does not notice an answer before it has sent the whole body, and takes an interim one for the final answer.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if settings.insecure:  # the command warns once
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._adapter = _Adapter(self.sockets.opened)

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        route: Route,  # noqa: ARG002 - `requests` finds its own way
        headers: Mapping[str, str],
        data: bytes | Body | None,
        timeout: float,
        *,
        block: int = ANSWER_BLOCK,
        **_how: Any,
    ) -> Iterator[Received]:
        request = requests.PreparedRequest()
        request.method, request.url, request.headers = method, url, CaseInsensitiveDict(headers)
        request.body = cast("Any", _Read(data) if isinstance(data, Body) else data)
        where = self.dialler
        way: dict[str, Any] = {"verify": where.verify, "cert": where.cert, "proxies": where.proxies}
        with as_ours():
            answer = self._adapter.send(request, stream=True, timeout=(where.connect_timeout, timeout), **way)
        with answer:
            lines = [f"{name}: {' '.join(value.splitlines())}" for name, value in answer.raw.headers.iteritems()]
            fields = Fields("\n".join(lines))
            yield Received(answer.status_code, fields, intact(decoded(answer.raw, block)))

    def close(self) -> None:
        super().close()
        self._adapter.close()


class _Read:
    """A body as `requests` reads it: a piece has been sent when it asks for the next one."""

    def __init__(self, body: Body) -> None:
        self._body, self._given = body, 0

    def read(self, amount: int) -> memoryview:
        self._body.taken(self._given)
        piece = self._body.read(amount)
        self._given = len(piece)
        return piece


class _Adapter(HTTPAdapter):
    """`opened` gets the socket of each connection, which another thread can shut then."""

    def __init__(self, opened: Callable[[Any], None]) -> None:
        self._opened = opened
        super().__init__()

    def init_poolmanager(self, *where: Any, **how: Any) -> None:
        super().init_poolmanager(*where, blocksize=PIECE, **how)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **how: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, blocksize=PIECE, **how)
        if is_new:
            self._watch(manager)
        return manager

    def _watch(self, manager: Any) -> None:
        opened = self._opened

        def watched(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]
                def connect(self) -> None:
                    super().connect()
                    opened(getattr(self.sock, "socket", self.sock))  # TLS within TLS wraps the socket

            return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

        bases = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in bases.items()}
