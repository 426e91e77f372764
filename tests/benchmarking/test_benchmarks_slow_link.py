"""The slow link of the benchmarks: rates and delays with a fake clock, and bytes through real sockets."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from benchmarks.slow_link import PIECE, Lane, Link
from fakes import Clock

RATE = PIECE * 10
"""Bytes a second: a piece takes a tenth of one."""


def test_pieces_leave_at_the_rate_after_one_burst() -> None:
    lane = Lane(RATE, 0, Clock(0.0))
    assert [lane.departure(PIECE) for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_idle_lane_saves_one_burst_at_most() -> None:
    clock = Clock(0.0)
    lane = Lane(RATE, 0, clock)
    lane.departure(PIECE)
    clock.pass_(100.0)
    assert [lane.departure(PIECE) for _ in range(3)] == pytest.approx([100.0, 100.1, 100.2])


def test_a_lane_without_rate_only_delays() -> None:
    lane = Lane(0, 0.04, Clock(0.0))
    leaves = lane.departure(100 * PIECE)
    assert (leaves, lane.arrival(leaves)) == (0.0, 0.04)


@pytest.mark.parametrize("round_trip", [0.0, 0.05])
def test_bytes_arrive_whole_and_not_before_the_round_trip(round_trip: float) -> None:
    sent = bytes(range(256)) * 1000
    with socket.create_server(("127.0.0.1", 0)) as echo:
        link = Link(echo.getsockname(), round_trip=round_trip, rate=1e9 if round_trip else 0)
        threading.Thread(target=link.serve, daemon=True).start()
        threading.Thread(target=_echo, args=(echo,), daemon=True).start()
        try:
            with socket.create_connection(("127.0.0.1", link.port)) as client:
                began = time.monotonic()
                client.sendall(sent)
                came = b""
                while len(came) < len(sent):
                    came += client.recv(1 << 16)
                took = time.monotonic() - began
        finally:
            link.close()
    assert came == sent
    assert took >= 2 * round_trip  # one for the handshake of TCP, one for the bytes


def _echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)
