"""One large file as several partial uploads at once, made one by the server (tus 1.0, concatenation)."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.transfer.stop import Stop
from uploader_cli.transfer.tus_parts_progress import PartsProgress
from uploader_cli.transfer.tus_retry import TusRetry
from uploader_cli.transfer.tus_types import SILENT, UNKNOWN, Known, Sent, Watch, new_key
from uploader_cli.transfer.tus_upload import TusUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.tus import TusClient
    from uploader_cli.transfer.tus_types import Terms

Joined = tuple[str, "Mapping[str, str]"]
_TICK = 0.25


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the file, in bytes, and what the journal has of it (`core.tus.parts` cuts).

    `watch` hears of this part alone, and `make_key` is called, in the thread that sends it.
    """

    start: int
    length: int
    known: Known = UNKNOWN
    watch: Watch = SILENT
    make_key: Callable[[], str] = new_key


def send_in_parts(
    clients: Sequence[TusClient],
    terms: Terms,
    file: LocalFile,
    metadata: Mapping[str, str],
    parts: Sequence[Part],
    *,
    part_metadata: Mapping[str, str] | None = None,
    watch: Watch = SILENT,
    known: Known = UNKNOWN,
    make_key: Callable[[], str] = new_key,
) -> Sent:
    """Send the parts, a thread for each client, then have the server join them. Raises as `TusUpload.run`.

    `watch` hears of the whole file, in the caller's thread, in order: bytes are sums over the parts, and a retry of any
    part begins a new attempt of the file. `known` is what the journal has of the joined upload: its key, where it may
    have been asked for already, so that it is not made twice. The first failure stops the other parts.
    """
    terms.stop.check()
    checked = [part.known.checked_until for part in parts]
    whole = PartsProgress(file.size, _confirmed_before(clients[0], parts), checked, watch)
    whole.begin()
    joining = _Joining(clients[0], terms, metadata, whole)
    urls = [part.known.url for part in parts if part.known.url is not None]
    if known.key is not None and len(urls) == len(parts):
        verified = all(part.known.verifies(part.length) for part in parts)  # what can be joined is complete
        sent = joining.asked_before(known.key, urls, verified=verified)
        if sent is not None:
            return sent
    done = _Sending(clients, terms, file, part_metadata or {}, parts, whole).run()
    key = known.key or make_key()
    return joining.run(key, [item.url for item in done], verified=all(item.verified for item in done))


def _confirmed_before(client: TusClient, parts: Sequence[Part]) -> list[int]:
    """Where the server is in each part, as far as it says so at once: what it has is not to count as sent now.

    An answer that fails is no failure here: each part asks again, with patience.
    """
    found = [part.known.confirmed for part in parts]
    for index, part in enumerate(parts):
        if part.known.url is None:
            continue
        try:
            found[index] = min(client.head(part.known.url).offset, part.length)
        except errors.UploadGone:
            found[index] = 0
        except errors.UploaderError:
            break
    return found


class _Halt(Stop):
    """The run's stop, and one more reason to: another part has failed."""

    def __init__(self, outer: Stop) -> None:
        super().__init__()
        self._outer = outer

    def __bool__(self) -> bool:
        return bool(self._outer) or super().__bool__()

    def check(self) -> None:
        self._outer.check()
        super().check()

    def sleep(self, seconds: float) -> None:
        self.check()
        while seconds > 0:
            self._outer.sleep(min(_TICK, seconds))
            self.check()
            seconds -= _TICK


class _Sending:
    """Threads that take one part after the other. What they tell goes through a queue to the caller's thread."""

    def __init__(
        self,
        clients: Sequence[TusClient],
        terms: Terms,
        file: LocalFile,
        metadata: Mapping[str, str],
        parts: Sequence[Part],
        whole: PartsProgress,
    ) -> None:
        self._clients, self._file, self._metadata, self._parts = clients, file, metadata, parts
        self._whole = whole
        self._halt = _Halt(terms.stop)
        self._terms = replace(terms, stop=self._halt)
        self._waiting = deque(range(len(parts)))
        self._heard: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done: dict[int, Sent] = {}
        self._errors: list[BaseException] = []

    def run(self) -> list[Sent]:
        threads = [
            threading.Thread(target=self._work, args=(client,), name=f"part-{number}")
            for number, client in enumerate(self._clients[: len(self._parts)])
        ]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                told = self._heard.get()
                if told is None:
                    running -= 1
                else:
                    told()
        finally:
            self._halt.set()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        return [self._done[index] for index in range(len(self._parts))]

    def _work(self, client: TusClient) -> None:
        try:
            while self._waiting:
                index = self._waiting.popleft()
                self._done[index] = self._upload(client, index).run()
        except IndexError:  # another thread was faster
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._errors.append(error)
            self._halt.set()
        finally:
            self._heard.put(None)

    def _upload(self, client: TusClient, index: int) -> TusUpload:
        part = self._parts[index]
        return TusUpload(
            client,
            self._terms,
            self._file,
            self._metadata,
            watch=self._watch(index, part.watch),
            known=part.known,
            make_key=part.make_key,
            part=(part.start, part.length),
        )

    def _watch(self, index: int, own: Watch) -> Watch:
        """Tell the part's own watch here and now, and the whole's in the other thread."""
        whole = self._whole

        def confirmed(offset: int, checked: int) -> None:
            own.confirmed(offset, checked)
            self._heard.put(partial(whole.confirmed, index, offset, checked))

        def sent(total: int) -> None:
            own.sent(total)
            self._heard.put(partial(whole.sent, index, total))

        def retry(error: errors.UploaderError, delay: float, attempt: int) -> None:
            own.retry(error, delay, attempt)
            self._heard.put(partial(whole.retry, index, error, delay))

        def pause(seconds: float) -> None:
            own.pause(seconds)
            self._heard.put(partial(whole.watch.pause, seconds))

        return replace(own, confirmed=confirmed, sent=sent, retry=retry, pause=pause)


class _Joining:
    """The last step: the server makes one upload of the parts."""

    def __init__(self, client: TusClient, terms: Terms, metadata: Mapping[str, str], whole: PartsProgress) -> None:
        self._client, self._metadata, self._whole = client, metadata, whole
        self._retry = TusRetry(client, terms, failed=whole.again, pause=whole.watch.pause)

    def asked_before(self, key: str, urls: Sequence[str], *, verified: bool) -> Sent | None:
        """What an earlier run may have asked for; None where the parts have to be sent first."""
        try:
            return self.run(key, urls, verified=verified)
        except errors.AnswerError as error:
            if error.retryable:
                raise
            return None

    def run(self, key: str, urls: Sequence[str], *, verified: bool) -> Sent:
        """Ask, with patience. Raises what `TusUpload.run` raises."""
        joined: list[Joined] = []
        self._retry.run(lambda: joined.append(self._ask(key, urls)))
        url, headers = joined[-1]
        return Sent(url, headers, verified, self._whole.attempt)

    def _ask(self, key: str, urls: Sequence[str]) -> Joined:
        self._retry.ready()
        created = self._client.concatenate(urls, {**self._metadata, "uploadKey": key})
        offset, headers = created.offset, created.headers
        if offset is None:
            position = self._client.head(created.url)
            offset, headers = position.offset, position.headers
        if offset != self._whole.size:
            raise errors.ProtocolError(f"{created.url} was joined to {offset} bytes of {self._whole.size}")
        self._whole.joined(created.url)
        return created.url, headers
