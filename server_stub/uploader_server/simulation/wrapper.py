"""The layers that inject faults into requests and events; installed only if faults are configured or can be added."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uploader_server.http.connections import cut
from uploader_server.http.errors import ApiError, Json, read_json, refuse
from uploader_server.http.middleware import effective_method, is_realtime
from uploader_server.http.tracking import TrackedRequest
from uploader_server.simulation.effects import EFFECTS, with_wrong_types
from uploader_server.simulation.exchange import Exchange, Unanswered, until_gone
from uploader_server.simulation.rules import RuleError, parse_rule
from uploader_server.simulation.state import Faults, Gate

logger = logging.getLogger(__name__)

CONTROL_PATH = "/faults"
LONGEST_HANG = 300.0  # maximum seconds that a connection hangs; longer than the timeouts of clients
MOST_DELAYED = 100  # maximum messages of a websocket that are delayed at the same time
LONGEST_SWAP = 1.0  # maximum seconds that a swapped event waits for the next one
_REFUSALS = {"off": 404, "refuse": 403}


def control_route(faults: Faults) -> Route:
    """Return the route of `/faults`, by which tests change the rules of a server in another process.

    `GET` lists the active rules with their counts, `POST {"rules": [TEXT, …]}` adds rules, `DELETE` removes all faults.
    It needs the auth token if one is configured: a proxy on this machine passes on requests of others.
    """

    async def serve(request: Request) -> Response:
        if request.method == "POST":
            try:
                _add_rules(faults, await read_json(request))
            except ApiError as error:  # in English also on the reference backend
                return Json(error.body(), error.status)
        elif request.method == "DELETE":
            faults.clear()
        return Json({"rules": [{"rule": rule.text, "seen": rule.seen, "hits": rule.hits} for rule in faults.rules]})

    return Route(CONTROL_PATH, serve, methods=["GET", "POST", "DELETE"], include_in_schema=False)


def _add_rules(faults: Faults, body: Any) -> None:
    """Add all rules, or none if one is invalid. Raises ApiError 400."""
    rules = body.get("rules") if isinstance(body, dict) else None
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ApiError(400, "VALIDATION_ERROR", 'Send {"rules": ["status:patch#1:503"]}')
    try:
        valid = [parse_rule(rule).text for rule in rules]
    except RuleError as error:
        raise ApiError(400, "INVALID_RULE", str(error)) from None
    for rule in valid:
        faults.add(rule)


class FaultyApp:
    """Middleware that applies latency, rules, scripted responses and gates of Socket.IO.

    With `control` they don't affect `/faults`.
    """

    def __init__(self, app: ASGIApp, faults: Faults, *, control: bool) -> None:
        self._app = app
        self._faults = faults
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: TrackedRequest) -> None:
        if self._control and scope["type"] == "http" and scope["path"] == CONTROL_PATH:
            await self._app(scope, receive, send)
            return
        if self._faults.latency:
            await asyncio.sleep(self._faults.latency)
        if is_realtime(scope):
            await self._serve_realtime(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._serve_http(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: TrackedRequest) -> None:
        method, path = effective_method(scope), scope["path"]
        app = self._app
        answer = self._faults.take_answer(method, path)
        if answer is not None:
            app = self._layer(app, send, "", Exchange.answer, answer)
        for rule in reversed(self._faults.hit("REQUEST", method, path)):  # the first one is the outermost
            app = self._layer(app, send, rule.text, EFFECTS[rule.kind], *rule.values.values())
        await app(scope, receive, send)

    def _layer(
        self, app: ASGIApp, seen: TrackedRequest, rule: str, effect: Callable[..., Awaitable[None]], *values: object
    ) -> ASGIApp:
        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            with contextlib.suppress(Unanswered):
                await effect(Exchange(rule, self._faults.restart, app, seen, scope, receive, send), *values)

        return layer

    async def _serve_realtime(self, scope: Scope, receive: Receive, send: Send) -> None:
        side = "websocket" if scope["type"] == "websocket" else "polling"
        gates = [self._faults.gates["realtime"], self._faults.gates[side]]
        for gate in gates:
            gate.arrive()
        state = next((gate.state() for gate in gates if gate.state() != "up"), "up")
        if state in _REFUSALS:
            await refuse(_REFUSALS[state], scope, receive, send)
            return
        ended = asyncio.Event()

        def end() -> None:
            cut(scope)
            ended.set()

        for gate in gates:
            gate.live.add(end)
        try:
            if state != "hang":
                await self._app(
                    scope, *_freezing(gates, receive, Delayed(self._faults, send) if side == "websocket" else send)
                )
            if any(gate.state() == "hang" for gate in gates):
                await _hang(receive, ended)
        finally:
            for gate in gates:
                gate.live.discard(end)


def _freezing(gates: list[Gate], receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Wrap `receive` and `send` to drop all messages while a gate is frozen."""

    def frozen() -> bool:
        return any(gate.frozen() for gate in gates)

    async def receiving() -> Message:
        message = await receive()
        while frozen() and message["type"] in {"websocket.receive", "http.request"}:
            message = await receive()
        return message

    async def sending(message: Message) -> None:
        if not frozen():
            await send(message)

    return receiving, sending


class Delayed:
    """A `send` that delays each message by the latency, in order.

    It blocks the sender only if MOST_DELAYED messages wait: the client doesn't read.
    """

    def __init__(self, faults: Faults, send: Send) -> None:
        self._faults = faults
        self._send = send
        self._last: asyncio.Task[None] | None = None  # the sending of the last delayed message
        self._delayed = 0

    async def __call__(self, message: Message) -> None:
        if self._last is not None and self._delayed >= MOST_DELAYED:
            await asyncio.wait({self._last})
        waiting = self._last is not None and not self._last.done()
        if self._faults.latency or waiting:
            due = asyncio.get_running_loop().time() + self._faults.latency
            self._delayed += 1
            self._last = asyncio.create_task(self._deliver(message, due, self._last))
        else:
            await self._send(message)

    async def _deliver(self, message: Message, due: float, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        try:
            await self._send(message)
        except Exception as error:  # noqa: BLE001 - the client has disconnected
            logger.debug("can't send a delayed message: %r", error)
        finally:
            self._delayed -= 1


async def _hang(receive: Receive, ended: asyncio.Event) -> None:
    """Wait until the client disconnects or the gate changes, for at most LONGEST_HANG.

    granian doesn't report the disconnect of a client whose websocket is not accepted yet.
    """
    async with until_gone(receive, ended):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), LONGEST_HANG)


class FaultyEvents:
    """Delivers events and applies the rules for events."""

    def __init__(self, deliver: Callable[..., Awaitable[None]], faults: Faults) -> None:
        self._deliver = deliver
        self._faults = faults
        self._swapped: dict[str, Callable[[], Awaitable[None]]] = {}
        """Function that sends the swapped event, by receiver."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, name: str, event: dict[str, Any], **target: str) -> None:
        """Deliver an event to a Socket.IO room or a connection, as the rules say."""
        rules = {rule.kind.removeprefix("event-"): rule.values for rule in self._faults.hit("EVENT", name)}
        if "types" in rules:
            event = with_wrong_types(event, rules["types"]["key"])

        async def send() -> None:
            if "missing" in rules:
                return
            for _ in range(1 + ("doubled" in rules)):
                await self._deliver(name, event, **target)
            if "foreign" in rules:
                await self._deliver(name, {**event, "sessionId": str(uuid.uuid4())}, **target)

        key = str(target)
        swapped = self._swapped.pop(key, None)
        if "late" in rules:
            self._later(rules["late"]["seconds"], send)
        elif "swapped" in rules:
            self._swapped[key] = send
            self._later(LONGEST_SWAP, lambda: self._release(key, send))
        else:
            await send()
        if swapped is not None:
            await swapped()

    async def _release(self, key: str, send: Callable[[], Awaitable[None]]) -> None:
        """Send a swapped event that no other event has followed."""
        if self._swapped.get(key) is send:
            del self._swapped[key]
            await send()

    def _later(self, seconds: float, send: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await send()

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
