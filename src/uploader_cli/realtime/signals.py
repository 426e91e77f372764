"""The input (signals) and the output (actions) of the connection policy, as values.

Tries are numbered: one dial makes up to two, the websocket and Engine.IO polling after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploader_cli.core.events import ChannelChanged, ChannelReason, Transport

# --- signals ---------------------------------------------------------------------------------------------------------


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


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """Try `transport` with a fresh client; the machine drops it after `seconds`."""

    number: int
    transport: Transport
    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Try `number` is not needed: end its threads and sockets."""

    number: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """Leave all rooms over the connection of try `number`, then end it."""

    number: int


@dataclass(frozen=True, slots=True)
class JoinAll:
    """Join the room of each followed session over try `number`; the server never restores rooms."""

    number: int


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Fetch each followed session once over HTTP: what was sent while there was no connection is not sent again."""


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
