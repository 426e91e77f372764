"""An ended session is final: it is cancelled or finished at each wait of a request that stores files in it."""

from __future__ import annotations

import asyncio
import gc
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from chaos.endings import ENDS, REQUESTS, Application, Waits, counting, ended_at, make_task

from uploader_server.session import Session
from uploader_server.storage.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("durability", ["none", "fsync"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_session_that_ends_at_any_wait_of_a_request_stays_ended(
    request_: str, end: str, durability: str, tmp_path: Path
) -> None:
    """What is answered as stored is stored and counted; of what is refused nothing is."""

    async def run() -> int:
        asyncio.get_running_loop().set_task_factory(make_task)  # type: ignore[arg-type]
        application = Application(tmp_path, durability)
        at = 1
        while await ended_at(application, [request_], end, at, files=2):
            at += 1
        application.app.close()
        return at

    assert asyncio.run(run()) > 5


def test_files_are_stored_although_the_request_that_cancels_their_session_has_gone() -> None:
    async def run() -> bool:
        session = Session(str(uuid.uuid4()), "personal", 1, Clock(0.0))
        with session.storing():
            closing = asyncio.ensure_future(session.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
        return session.ended

    assert asyncio.run(run()) is False


@pytest.mark.parametrize("kind", ["batch", "pack", "tus"])
def test_error_of_a_request_that_is_cancelled_at_the_same_time_is_not_logged(tmp_path: Path, kind: str) -> None:
    """As of a client that has gone when the server stops: its last piece does not arrive."""
    logged: list[str] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context["message"]))
        application = Application(tmp_path)
        session, whole = await application.session(), application.app

        async def cut(scope: Any, receive: Any, send: Any) -> None:
            async def pieces() -> Any:
                message = await receive()
                if message.get("more_body") or not message.get("body"):
                    return message
                request.cancel()
                return {"type": "http.disconnect"}

            await whole(scope, pieces, send)

        application.app = cut  # type: ignore[assignment]
        request = asyncio.ensure_future(getattr(application, kind)(session))
        await asyncio.wait([request])
        whole.close()
        gc.collect()

    asyncio.run(run())
    assert logged == []


@pytest.mark.parametrize("other", ["batch", "pack", "creation"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_session_of_one_type_gets_no_other_at_any_wait_of_a_request(request_: str, other: str, tmp_path: Path) -> None:
    """The other request comes as a whole while the first one waits; one of both is stored."""

    async def run() -> int:
        asyncio.get_running_loop().set_task_factory(make_task)  # type: ignore[arg-type]
        application, at = Application(tmp_path, mixed_types=False), 0
        waits: Waits | None = None
        while waits is None or waits.acting is not None:
            at += 1
            session = await application.session(9)
            waits = Waits(at, partial(getattr(application, other), session, f"{at}.avi"))
            counting.set(waits)
            sending = asyncio.ensure_future(getattr(application, request_)(session, f"{at}.mp4"))
            counting.set(None)
            await sending
            if waits.acting is not None:
                await waits.acting
        application.app.close()
        return at

    rounds = asyncio.run(run())
    assert rounds > 5
    assert sorted(int(path.stem) for path in tmp_path.glob("personal/*")) == [*range(1, rounds + 1)]
