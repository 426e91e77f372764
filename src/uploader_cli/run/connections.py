"""The clients of one run, wired to each other: transfer and realtime never import one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_cli.core.events import SessionProgress
from uploader_cli.core.sightings import Sightings
from uploader_cli.realtime.channel import Channel
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.stop import Stop
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from uploader_cli.core.events import Event
    from uploader_cli.run.loop import Loop
    from uploader_cli.settings import Settings


@dataclass(slots=True)
class Connections:
    """The clients of one run: the upload's, the polls', and what the realtime channel dials with."""

    settings: Settings
    loop: Loop
    stop: Stop = field(default_factory=Stop)
    sightings: Sightings = field(default_factory=Sightings)
    api: Api = field(init=False)
    polls: Api = field(init=False)
    channel: Channel = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(self.settings, self.loop.emit, self.stop)
        self.polls = Api(self.settings, self.loop.emit, self.stop, beside=self.api)
        registries: dict[int, Sockets] = {}

        def session() -> Any:
            sockets = Sockets()
            made = make_session(self.settings, sockets)
            registries[id(made)] = sockets
            return made

        def shut(made: Any) -> None:
            registries.pop(id(made), Sockets()).shut()

        self.channel = Channel(
            self.settings.server,
            emit=self._heard,
            fetch=self.polls.progress,
            interval=self.api.budget.poll_interval,
            session_factory=session,
            shut=shut,
            headers=lambda: {**self.settings.headers, **self.api.authorization()},
        )

    def _heard(self, event: Event) -> None:
        if isinstance(event, SessionProgress):
            self.sightings.note(event)
        self.loop.emit(event)

    def close(self) -> None:
        """Leave rooms, close connections; bounded to well under a second."""
        self.polls.shut()
        self.channel.close()
        self.polls.close()
        self.api.close()
