"""One large file as several partial uploads, joined by the server (tus 1.0, concatenation).

Each part is a job of the worker pool. The worker that finishes the last part has the server join them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.transfer.retry import Tries
from uploader_cli.transfer.tus_upload import SILENT, UNKNOWN, Known, Sent, TusUpload, Watch, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.tus import Created, TusClient
    from uploader_cli.transfer.tus_upload import Terms


TICK = 0.25
"""Seconds between two looks at whether another part has failed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the file, in bytes, and what the journal has of it (`core.tus.parts` cuts).

    `watch` reports this part alone; `make_key` is called in the thread that sends it.
    """

    start: int
    length: int
    known: Known = UNKNOWN
    watch: Watch = SILENT
    make_key: Callable[[], str] = new_key


class PartStopped(errors.UploaderError):
    """Another part of the file has failed: this one is not needed."""


class PartsLost(errors.UploaderError):
    """The server has neither all parts of an earlier run nor what they were joined to: the file begins anew."""


class PartedUpload:
    """A file in parts. `send` is called once for each part, from any threads; `watch` reports the whole file.

    Bytes are sums over the parts, and a retry of any part begins a new attempt of the file. The first failure stops the
    other parts.
    """

    def __init__(
        self,
        terms: Terms,
        file: LocalFile,
        metadata: Mapping[str, str],
        parts: Sequence[Part],
        key: str,
        *,
        watch: Watch = SILENT,
        joined: str | None = None,
        session: str | None = None,
        recognises_keys: bool = True,
    ) -> None:
        """`metadata` and `key` are those of the upload that joins the parts; `session` goes with each part, if any.

        An earlier run may have joined it already: to the URL `joined`, where that is known. `recognises_keys` is
        True for the bundled server: it finds an upload by its key, and writes parts in place (docs/protocol.md,
        section 7). On other servers the parts are deleted in the end.
        """
        self._terms, self._file, self._metadata, self._parts, self._key = terms, file, metadata, parts, key
        self._joined, self._session = joined, session
        self._recognises_keys = recognises_keys
        self._lock = threading.Lock()
        self._done: dict[int, Sent] = {}
        self._left = len(parts)
        self.error: BaseException | None = None
        """The first failure of a part."""
        self._whole = _Whole(file.size, [part.known.checked_until for part in parts], watch)

    def begin(self, client: TusClient) -> Sent | None:
        """Begin the first attempt at the server's true offset; return the upload where it is complete already.

        Raise what `TusUpload.run` raises, and `PartsLost`.
        """
        sent = self._joined_at(client, self._joined) if self._joined is not None else None
        if sent is not None:
            return sent
        confirmed, gone = self._confirmed(client)
        if gone and self._recognises_keys and all(part.known.url is not None for part in self._parts):
            return self._joined_by_key(client)
        self._whole.begin(confirmed)
        return None

    def send(self, index: int, client: TusClient, helper: Callable[[], Executor] | None) -> Sent | None:
        """Send one part; the thread that sends the last one joins all and returns the whole upload.

        Raise the first error of any part, in the thread that ends last; `PartStopped` in the others.
        """
        part = self._parts[index]
        try:
            self._check()
            sent = TusUpload(
                client,
                self._terms,
                self._file,
                self._part_metadata(part),
                watch=self._watch(index, part.watch),
                known=part.known,
                make_key=part.make_key,
                part=(part.start, part.length),
                helper=helper,
                check=self._check,
                sleep=self._sleep,
            ).run()
            self._done[index] = sent
        except BaseException as error:  # noqa: BLE001 - raised by the part that ends last
            with self._lock:
                if self.error is None:
                    self.error = error
        with self._lock:
            self._left -= 1
            last = not self._left
        if not last:
            if self.error is not None:
                raise PartStopped("another part of the file failed")
            return None
        if self.error is not None:
            raise self.error
        done = [self._done[number] for number in range(len(self._parts))]
        return self._join(client, [item.url for item in done], verified=all(item.verified for item in done))

    def _part_metadata(self, part: Part) -> dict[str, str]:
        """Return a part's metadata: with its place in the file, where the server writes it there at once."""
        place = {"finalKey": self._key, "finalLength": str(self._file.size), "partOffset": str(part.start)}
        return ({"sessionId": self._session} if self._session else {}) | (place if self._recognises_keys else {})

    def _check(self) -> None:
        self._terms.retry.stop.check()
        if self.error is not None:
            raise PartStopped("another part of the file failed")

    def _sleep(self, seconds: float) -> None:
        """Wait, until another part fails at the latest."""
        while seconds > 0:
            self._check()
            self._terms.retry.stop.sleep(min(TICK, seconds))
            seconds -= TICK
        self._check()

    def _confirmed(self, client: TusClient) -> tuple[list[int], bool]:
        """Return the server's offset in each part, as far as it answers at once, and whether any part is gone.

        A call that fails is no failure here: each part asks again, with retries.
        """
        found = [part.known.confirmed for part in self._parts]
        gone = False
        for index, part in enumerate(self._parts):
            if part.known.url is None:
                continue
            try:
                self._terms.retry.wait_out_pause()
                found[index] = min(client.head(part.known.url).offset, part.length)
            except errors.UploadGone:
                found[index], gone = 0, True
            except errors.Interrupted:
                raise
            except errors.UploaderError:
                break
        return found, gone

    def _watch(self, index: int, own: Watch) -> Watch:
        """Report to the part's own watch and to the whole file's."""
        whole = self._whole

        def confirmed(offset: int, checked: int) -> None:
            own.confirmed(offset, checked)
            whole.confirmed(index, offset, checked)

        def retry(error: errors.UploaderError, delay: float, _attempt: int) -> None:
            if self.error is None:
                whole.retry(index, error, delay)

        return replace(own, confirmed=confirmed, sent=lambda total: whole.sent(index, total), retry=retry)

    # --- the whole ----------------------------------------------------------------------------------------------------

    def _join(self, client: TusClient, urls: Sequence[str], *, verified: bool) -> Sent:
        """Have the server make one upload of the parts. Raise what `TusUpload.run` raises."""

        def ask() -> Sent:
            created = client.concatenate(urls, {**self._metadata, "uploadKey": self._key})
            offset, headers = created.offset, created.headers
            if offset is None:
                position = client.head(created.url)
                offset, headers = position.offset, position.headers
            if offset != self._file.size:
                raise errors.ProtocolError(f"{created.url} was joined to {offset} bytes of {self._file.size}")
            self._whole.joined(created.url)
            return Sent(created.url, headers, verified, self._whole.attempt)

        retry = self._terms.retry
        sent = Tries(retry, on_retry=self._whole.again, stale=lambda: client.stale).run(ask)
        self._delete(client, urls)
        return sent

    def _joined_at(self, client: TusClient, url: str) -> Sent | None:
        """Return the upload at `url` if it is complete."""
        try:
            position = Tries(self._terms.retry, stale=lambda: client.stale).run(lambda: client.head(url))
        except errors.UploadGone:
            return None
        if position.offset != self._file.size:
            return None
        self._delete(client, [part.known.url for part in self._parts if part.known.url is not None])
        return self._joined_before(url, position.headers)

    def _joined_by_key(self, client: TusClient) -> Sent:
        """Return the upload that the server has for the key. Raise `PartsLost` where it has none."""

        def ask() -> Created:
            return client.create(self._file.size, {**self._metadata, "uploadKey": self._key})

        created = Tries(self._terms.retry, stale=lambda: client.stale).run(ask)
        if created.offset != self._file.size:
            client.discard(created.url)  # the key was new to the server: it has made an upload
            raise PartsLost("the server does not have the parts any more")
        return self._joined_before(created.url, created.headers)

    def _joined_before(self, url: str, headers: Mapping[str, str]) -> Sent:
        self._whole.begin([part.length for part in self._parts])
        self._whole.joined(url)
        verified = all(part.known.verifies(part.length) for part in self._parts)
        return Sent(url, headers, verified, self._whole.attempt)

    def _delete(self, client: TusClient, urls: Sequence[str]) -> None:
        """Delete joined parts where they would stay beside the whole, if the server can."""
        if not self._recognises_keys and self._terms.capabilities.terminates:
            for url in urls:
                client.discard(url)


class _Whole:
    """The progress of the whole file: sums over its parts. The lock orders the events of several threads."""

    def __init__(self, size: int, checked: Sequence[int], watch: Watch) -> None:
        """`checked` are the bytes of each part that the server has compared before."""
        self.attempt = 0
        self._size, self._watch = size, watch
        self._lock = threading.RLock()
        self._checked = list(checked)
        self._confirmed = [0] * len(checked)
        self._sent = [0] * len(checked)
        self._most_confirmed = self._most_sent = 0

    def begin(self, confirmed: Sequence[int]) -> None:
        """Begin the first attempt; `confirmed` are the bytes of each part that the server has."""
        self._confirmed, self._sent = list(confirmed), list(confirmed)
        self._begin()

    def confirmed(self, index: int, offset: int, checked: int) -> None:
        """Take the offset of a part. A sum that would fall is reported when it has risen again."""
        with self._lock:
            self._confirmed[index], self._checked[index] = offset, checked
            self._sent[index] = max(self._sent[index], offset)
            self._most_confirmed = max(self._most_confirmed, sum(self._confirmed))
            self._watch.confirmed(self._most_confirmed, sum(self._checked))

    def sent(self, index: int, total: int) -> None:
        """Take the bytes of a part that have left this machine."""
        with self._lock:
            self._sent[index] = total
            if sum(self._sent) > self._most_sent:
                self._most_sent = sum(self._sent)
                self._watch.sent(self._most_sent)

    def joined(self, url: str) -> None:
        """Report that the server has made one upload of the parts."""
        with self._lock:
            self._watch.created(url)
            self._most_confirmed = self._size
            self._watch.confirmed(self._size, sum(self._checked))

    def retry(self, index: int, error: errors.UploaderError, delay: float) -> None:
        """Begin a new attempt because a part is tried again."""
        with self._lock:
            self._sent[index] = self._confirmed[index]
            self.again(error, delay)

    def again(self, error: errors.UploaderError, delay: float) -> None:
        """Begin a new attempt: what the other parts send meanwhile belongs to it."""
        with self._lock:
            self._watch.retry(error, delay, self.attempt + 1)
            self._begin()

    def _begin(self) -> None:
        self.attempt += 1
        self._most_confirmed = self._most_sent = sum(self._confirmed)
        self._watch.attempt(self._most_confirmed, self.attempt)
