"""The policy of docs/protocol.md section 2, with its exact numbers, on a fake clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from uploader_cli.core.events import ChannelChanged, ChannelReason, ChannelState, Transport
from uploader_cli.realtime.policy import Action, Dial, Dialled, Drop, JoinAll, Lost, Machine, Policy, Polling

WS, POLLING = Transport.WEBSOCKET, Transport.POLLING


@dataclass(frozen=True)
class Up:
    """A try connects after so many seconds."""

    after: float = 0.0


@dataclass(frozen=True)
class Down:
    """A try is refused after so many seconds."""

    after: float = 0.0


class Hang:
    """A dial gets no answer."""


World = Callable[[Transport, float], Up | Down | Hang]


def always(websocket: Up | Down | Hang, polling: Up | Down | Hang) -> World:
    return lambda transport, _now: websocket if transport is WS else polling


def until(time: float, first: World, then: World) -> World:
    return lambda transport, now: (first if now < time else then)(transport, now)


REFUSED, HUNG, FINE = always(Down(), Down()), always(Hang(), Hang()), always(Up(), Up())


def described(action: Action) -> str:
    """An action in words: moves as `to transport reason attempt`, the others by name."""
    match action:
        case ChannelChanged():
            parts = [action.to, action.transport, action.reason, action.attempt]
            return " ".join(str(part) for part in parts if part is not None)
        case Dial(_, transport, seconds):
            return f"dial {transport} {seconds:g}s"
        case Polling():
            return f"polls {action.name.lower()}"
    return type(action).__name__


def play(world: World, end: float, *, lost: float = math.inf, closed: float = math.inf) -> list[str]:
    """The timeline from the start until `end`: each line is a time and an action."""
    machine, now = Machine(), 0.0
    live = 0
    steps: list[tuple[float, Callable[[float], list[Action]]]] = [
        (0.0, machine.start),
        (lost, lambda now: machine.handle(now, Lost(live, ChannelReason.LOST))),
        (closed, lambda _now: machine.close()),
    ]
    lines: list[str] = []
    while True:
        steps.sort(key=lambda pair: pair[0])
        deadline = machine.next_deadline
        now, step = steps[0] if steps and steps[0][0] <= (deadline or math.inf) else (deadline or math.inf, None)
        if now > end:
            return lines
        if step is not None:
            del steps[0]
        for action in (step or machine.tick)(now):
            if isinstance(action, Dial):
                match world(action.transport, now):
                    case Up(after):
                        steps.append((now + after, reporting(machine, Dialled(action.number, after))))
                    case Down(after):
                        failed = Lost(action.number, ChannelReason.REFUSED)
                        steps.append((now + after, reporting(machine, failed)))
            if isinstance(action, JoinAll):
                live = action.number
            if action != Drop(getattr(action, "number", 0)):
                lines.append(f"{now:g} {described(action)}")


def reporting(machine: Machine, report: Dialled | Lost) -> Callable[[float], list[Action]]:
    return lambda now: machine.handle(now, report)


def moves(lines: list[str]) -> list[str]:
    states = {str(state) for state in ChannelState}
    return [line for line in lines if line.split()[1] in states]


def dials(lines: list[str]) -> list[str]:
    return [line for line in lines if " dial " in line]


def test_the_numbers_of_the_protocol_are_the_defaults() -> None:
    assert Policy() == Policy(
        dial=5.0, websocket=2.5, retries=3, retry_delay=1.0, fallback=5.0, backoff_max=60.0, poll=1.0
    )


TABLE: dict[str, tuple[World, float, dict[str, float], list[str]]] = {
    "the websocket is tried first, and is enough": (
        FINE,
        10,
        {},
        ["0 connecting start", "0 dial websocket 2.5s", "0 live websocket connected", "0 JoinAll"],
    ),
    "a refused websocket goes to polling at once, with the dial's whole rest": (
        always(Down(0.5), Up(0.25)),
        10,
        {},
        [
            "0 connecting start",
            "0 dial websocket 2.5s",
            "0.5 dial polling 4.5s",
            "0.75 live polling connected",
            "0.75 JoinAll",
        ],
    ),
    "a websocket that hangs leaves polling half of the dial": (
        always(Hang(), Up()),
        10,
        {},
        [
            "0 connecting start",
            "0 dial websocket 2.5s",
            "2.5 dial polling 2.5s",
            "2.5 live polling connected",
            "2.5 JoinAll",
        ],
    ),
    "refused: the first dial and 3 more, 1 s after each failure, then HTTP polling": (
        REFUSED,
        3.5,
        {},
        [
            "0 connecting start",
            "0 dial websocket 2.5s",
            "0 dial polling 5s",
            "0 reconnecting refused 1",
            "1 dial websocket 2.5s",
            "1 dial polling 5s",
            "1 reconnecting refused 2",
            "2 dial websocket 2.5s",
            "2 dial polling 5s",
            "2 reconnecting refused 3",
            "3 dial websocket 2.5s",
            "3 dial polling 5s",
            "3 polling http retries_exhausted",
            "3 polls start",
        ],
    ),
    "hung: HTTP polling 5.0 s after the start, and the dial ends with it": (
        HUNG,
        5.9,
        {},
        [
            "0 connecting start",
            "0 dial websocket 2.5s",
            "2.5 dial polling 2.5s",
            "5 polling http deadline",
            "5 polls start",
        ],
    ),
    "slow failures: 5.0 s come before the third retry, and the dial under way goes on behind the polls": (
        always(Down(0.75), Down(0.75)),
        6,
        {},
        [
            "0 connecting start",
            "0 dial websocket 2.5s",
            "0.75 dial polling 4.25s",
            "1.5 reconnecting refused 1",
            "2.5 dial websocket 2.5s",
            "3.25 dial polling 4.25s",
            "4 reconnecting refused 2",
            "5 polling http deadline",
            "5 polls start",
            "5 dial websocket 2.5s",
            "5.75 dial polling 4.25s",
        ],
    ),
    "back behind the polls: join again, reconcile once, stop polling": (
        until(3.5, REFUSED, FINE),
        60,
        {},
        [
            "3 polling http retries_exhausted",
            "3 polls start",
            "4 dial websocket 2.5s",
            "4 live websocket connected",
            "4 JoinAll",
            "4 polls once",
            "4 polls stop",
        ],
    ),
    "a loss is the first failure: the next dial is 1 s later": (
        FINE,
        60,
        {"lost": 10.0},
        [
            "10 reconnecting lost 1",
            "11 dial websocket 2.5s",
            "11 live websocket recovered",
            "11 JoinAll",
            "11 polls once",
        ],
    ),
    "a loss, then refused: 3 retries, 1 s after each failure, then HTTP polling": (
        until(5, FINE, REFUSED),
        13.5,
        {"lost": 10.0},
        [
            "10 reconnecting lost 1",
            "11 dial websocket 2.5s",
            "11 dial polling 5s",
            "11 reconnecting refused 2",
            "12 dial websocket 2.5s",
            "12 dial polling 5s",
            "12 reconnecting refused 3",
            "13 dial websocket 2.5s",
            "13 dial polling 5s",
            "13 polling http retries_exhausted",
            "13 polls start",
        ],
    ),
    "a loss, then hung: HTTP polling 5.0 s after the loss": (
        until(5, FINE, HUNG),
        15.5,
        {"lost": 10.0},
        [
            "10 reconnecting lost 1",
            "11 dial websocket 2.5s",
            "13.5 dial polling 2.5s",
            "15 polling http deadline",
            "15 polls start",
        ],
    ),
    "a late dial wins behind the polls": (
        until(1, always(Down(), Down()), always(Hang(), Up(2.0))),
        60,
        {},
        [
            "1 dial websocket 2.5s",
            "3.5 dial polling 2.5s",
            "5 polling http deadline",
            "5 polls start",
            "5.5 live polling connected",
            "5.5 JoinAll",
            "5.5 polls once",
            "5.5 polls stop",
        ],
    ),
    "closing while live hangs up and is told": (
        FINE,
        60,
        {"closed": 7.0},
        ["7 polls stop", "7 Drop", "7 closed finished"],
    ),
    "closing while polling stops the polls for good": (
        REFUSED,
        600,
        {"closed": 3.25},
        ["3 polls start", "3.25 polls stop", "3.25 closed finished"],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_channel_moves_as_the_world_behaves(name: str) -> None:
    """Each row: how the world behaves, until when, what else happens, and the end of the timeline."""
    world, end, events, expected = TABLE[name]
    lines = play(world, end, **events)
    assert lines[-len(expected) :] == expected


def test_dials_during_polling_back_off_to_a_minute() -> None:
    times = [float(line.split()[0]) for line in dials(play(REFUSED, 400)) if "websocket" in line]
    behind = times[3:]
    assert [later - earlier for earlier, later in pairwise(behind)] == [
        1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60,
    ]  # fmt: skip


def test_backoff_restarts_after_each_reconnect() -> None:
    world = until(40, REFUSED, until(100, FINE, REFUSED))
    lines = play(world, 110, lost=100.0)
    assert dials(lines)[-4:] == [
        "106 dial websocket 2.5s",
        "106 dial polling 5s",
        "110 dial websocket 2.5s",
        "110 dial polling 5s",
    ]


def test_from_polling_the_channel_moves_only_to_live_or_closed() -> None:
    world = until(200, until(100, REFUSED, HUNG), FINE)
    after = moves(play(world, 1000, closed=900.0))[5:]
    assert [line.split()[1] for line in after] == ["live", "closed"]


def test_a_dial_takes_five_seconds_at_the_most() -> None:
    lines = play(HUNG, 600)
    begun = [line.split() for line in dials(lines)]
    for websocket, polling in zip(begun[::2], begun[1::2], strict=False):
        assert float(polling[0]) + float(polling[3].rstrip("s")) - float(websocket[0]) == 5.0


def test_each_retry_is_reported_with_its_number_and_cause() -> None:
    machine = Machine()
    machine.start(0.0)
    actions: list[Action] = []
    for attempt in range(4):
        for number in (2 * attempt + 1, 2 * attempt + 2):
            actions += machine.handle(float(attempt), Lost(number, ChannelReason.REFUSED))
        actions += machine.tick(attempt + 1.0)
    events = [action for action in actions if isinstance(action, ChannelChanged)]
    assert [(event.from_, event.to, event.attempt) for event in events] == [
        (ChannelState.CONNECTING, ChannelState.RECONNECTING, 1),
        (ChannelState.RECONNECTING, ChannelState.RECONNECTING, 2),
        (ChannelState.RECONNECTING, ChannelState.RECONNECTING, 3),
        (ChannelState.RECONNECTING, ChannelState.POLLING, None),
    ]


@pytest.fixture
def started() -> Machine:
    machine = Machine()
    machine.start(0.0)
    return machine


def test_latency_is_in_milliseconds(started: Machine) -> None:
    event = started.handle(0.5, Dialled(1, 0.0123))[0]
    assert isinstance(event, ChannelChanged)
    assert event.latency_ms == 12.3


def test_result_of_an_abandoned_dial_is_ignored(started: Machine) -> None:
    started.tick(2.5)  # the websocket's time is up; polling is try 2
    assert started.handle(2.6, Dialled(1, 2.6)) == [Drop(1)]
    assert started.handle(2.7, Lost(1, ChannelReason.REFUSED)) == []
    assert started.state is ChannelState.CONNECTING


def test_connection_lost_before_it_was_reported_is_a_failed_dial(started: Machine) -> None:
    actions = started.handle(0.1, Lost(1, ChannelReason.LOST))
    assert actions[0] == Drop(1)
    assert isinstance(actions[1], Dial)
    assert started.handle(0.2, Dialled(1, 0.1)) == [Drop(1)]


def test_a_closed_channel_stays_closed(started: Machine) -> None:
    started.close()
    assert started.start(2.0) == []
    assert started.tick(2.0) == []
    assert started.close() == []
    assert started.handle(2.0, Lost(1, ChannelReason.REFUSED)) == []
    assert started.next_deadline is None


def test_closing_drops_the_dial_under_way(started: Machine) -> None:
    assert Drop(1) in started.close()


def test_close_leaves_the_sessions_of_a_live_connection(started: Machine) -> None:
    started.handle(0.1, Dialled(1, 0.1))
    assert Drop(1, leave=True) in started.close()
