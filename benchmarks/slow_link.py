"""A relay before a server that makes the way there longer, narrower or encrypted.

`python -m benchmarks.slow_link HOST PORT [--round-trip S] [--rate BYTES] [--certificate PEM]` prints the port that it
listens on. Each connection has the rate to itself, in each direction. Not modelled: loss, and the slow start of TCP.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 1 << 14
"""Bytes that are read at once where rates count; also the burst that passes at full speed."""
LARGE_PIECE = 1 << 18
KERNEL_BUFFER = 1 << 17
"""Bytes that the kernel may take in advance of the link, in each direction."""


class Lane:
    """One direction of one connection: a token bucket, then a delay."""

    def __init__(self, rate: float, delay: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Take `rate` bytes a second (0: no limit), which arrive `delay` seconds after they left."""
        self._rate, self._delay, self._clock = rate, delay, clock
        self._paid = float("-inf")
        """The moment up to which the rate is used up; one piece may be made up for, as sleeps take too long."""

    def departure(self, size: int) -> float:
        """Return the moment at which a piece of `size` bytes that is ready now has left."""
        now = self._clock()
        if self._rate:
            self._paid = max(self._paid, now - PIECE / self._rate) + size / self._rate
        return max(now, self._paid)

    def arrival(self, departure: float) -> float:
        """Return the moment at which a piece that leaves at `departure` arrives."""
        return departure + self._delay


class Link:
    """Accepts connections on a free port of this machine and relays each to the target."""

    def __init__(
        self,
        target: tuple[str, int],
        *,
        round_trip: float = 0.0,
        rate: float = 0.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Relay at once where neither a round trip (seconds) nor a rate (bytes a second) is given."""
        self._target, self._round_trip, self._rate, self._context = target, round_trip, rate, context
        self._listener = socket.socket()
        if self._shaped:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self.port: int = self._listener.getsockname()[1]

    @property
    def _shaped(self) -> bool:
        return bool(self._round_trip or self._rate)

    def serve(self) -> None:
        """Relay until `close`."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open go on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            server = socket.create_connection(self._target)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._shaped:
                _relay_at_once(client, server)
                return
            opened = time.monotonic() + self._round_trip  # the handshake of TCP takes a round trip of its own
            for source, sink in ((client, server), (server, client)):
                lane = Lane(self._rate, self._round_trip / 2)
                threading.Thread(target=_carry, args=(source, sink, lane, opened), daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket, lane: Lane, opened: float) -> None:
    """Carry one direction: this thread lets pieces leave, another one lets them arrive."""
    under_way: queue.Queue[tuple[float, bytes]] = queue.Queue()
    threading.Thread(target=_arrive, args=(under_way, sink), daemon=True).start()
    time.sleep(max(0.0, opened - time.monotonic()))
    piece = b"-"
    while piece:
        try:
            piece = source.recv(PIECE)
        except OSError:
            piece = b""
        leaves = lane.departure(len(piece))
        time.sleep(max(0.0, leaves - time.monotonic()))
        under_way.put((lane.arrival(leaves), piece))


def _arrive(under_way: queue.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            arrives, piece = under_way.get()
            time.sleep(max(0.0, arrives - time.monotonic()))
            if not piece:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(piece)


def _relay_at_once(client: socket.socket, server: socket.socket) -> None:
    """Relay both directions in one thread: an SSL socket must not be read and written by two at a time."""
    other = {client: server, server: client}
    with client, server:
        while True:
            for source in select.select([client, server], [], [])[0]:
                more = True
                while more:
                    piece = source.recv(LARGE_PIECE)
                    if not piece:
                        return
                    other[source].sendall(piece)
                    more = isinstance(source, ssl.SSLSocket) and source.pending() > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--round-trip", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--certificate")
    options = parser.parse_args()
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    link = Link((options.host, options.port), round_trip=options.round_trip, rate=options.rate, context=context)
    print(link.port, flush=True)
    link.serve()


if __name__ == "__main__":
    main()
