"""The call `/faults`, by which tests change the rules of a server in another process.

`GET` lists the active rules with their counts, `POST {"rules": [TEXT, …]}` adds rules, `DELETE` removes all faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from uploader_server.faults.rules import RuleError, parse_rule
from uploader_server.http.errors import ApiError, Json, as_api_error, read_json

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from uploader_server.faults.state import Faults

PATH = "/faults"


class FaultControl:
    """The ASGI application of `/faults`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        try:
            if request.method == "POST":
                await self._add(request)
            elif request.method == "DELETE":
                self._faults.clear()
            elif request.method != "GET":
                raise ApiError(405, "METHOD_NOT_ALLOWED", "The method is not allowed")
            rules = [{"rule": rule.text, "seen": rule.seen, "hits": rule.hits} for rule in self._faults.rules]
            answer = Json({"rules": rules})
        except (ApiError, ClientDisconnect) as error:
            failure = as_api_error(error)
            answer = Json(failure.body(), failure.status)
        await answer(scope, receive, send)

    async def _add(self, request: Request) -> None:
        """Add all rules, or none if one is invalid. Raises ApiError 400."""
        body = await read_json(request)
        rules = body.get("rules") if isinstance(body, dict) else None
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise ApiError(400, "VALIDATION_ERROR", 'Send {"rules": ["status:patch#1:503"]}')
        try:
            for rule in rules:
                parse_rule(rule)
        except RuleError as error:
            raise ApiError(400, "INVALID_RULE", str(error)) from None
        for rule in rules:
            self._faults.add(rule)
