"""Signals (input) and actions (output) of the connection policy. Each dial has two numbered tries at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploader_cli.core.events import ChannelChanged, ChannelReason, Transport


@dataclass(frozen=True, slots=True)
class Start:
    """The channel is wanted."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """Try `number` is connected, `latency` seconds after it began."""

    number: int
    latency: float


@dataclass(frozen=True, slots=True)
class DialFailed:
    """Try `number` failed."""

    number: int
    reason: ChannelReason


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection of try `number` is gone."""

    number: int
    reason: ChannelReason


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Close:
    """The channel is no longer wanted."""


Signal = Start | Dialled | DialFailed | Lost | Tick | Close


@dataclass(frozen=True, slots=True)
class Dial:
    """Start try `number` with a new client; it is dropped after `seconds`."""

    number: int
    transport: Transport
    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """End the threads and sockets of try `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """Leave all rooms over try `number`, then end it."""

    number: int


@dataclass(frozen=True, slots=True)
class JoinAll:
    """Join the rooms of all followed sessions over try `number`: the server never restores rooms."""

    number: int


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Fetch each followed session once over HTTP: the server does not repeat missed messages."""


@dataclass(frozen=True, slots=True)
class StartPolling:
    """Poll over HTTP."""


@dataclass(frozen=True, slots=True)
class StopPolling:
    """Stop polling over HTTP."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Emit an event."""

    event: ChannelChanged


Action = Dial | Drop | HangUp | JoinAll | Reconcile | StartPolling | StopPolling | Emit
