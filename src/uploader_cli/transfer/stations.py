"""What happens to a file besides its being sent: its stations, in one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.feature import used
from uploader_cli.transfer.projections import receipt_of
from uploader_cli.transfer.result_poller import ResultPoller
from uploader_cli.transfer.second_reading import SecondReading
from uploader_cli.transfer.station import Carrier, Station
from uploader_cli.transfer.verification import Comparison, Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.feature import Place
    from uploader_cli.transfer.results import FileResult
    from uploader_cli.transfer.upload_session import RunContext


class Stations:
    """Take every result from its job, or from the check that has found the file on the server, to its end.

    A new station is one more line in the list, or a step of a feature; none knows another. Their order is a promise:

    - A file is admitted before anything of it is read: what is known of it then is what a later station compares.
    - A receipt is written before a station that takes long: a run that is killed there sends no file again. It is not
      written before the bytes that were sent are known to be those of the file.
    - What becomes of the local file comes last: after its receipt, the comparison of what is stored, and the server's
      own work.
    - A file ends once, and after all that can make it fail. Its session ends after it.
    """

    def __init__(self, context: RunContext) -> None:
        settings = context.settings
        self._stations: list[Station] = [
            SecondReading(context),
            Recording(context),
            Comparison(context),
            *_steps(context, "stored"),
            *([ResultPoller(context, self.take)] if settings.result_url is not None else []),
            *_steps(context, "last"),
            Finishing(context),
        ]
        self._admitting = self._overriding("admit")
        self._keeping = self._overriding("kept")

    def _overriding(self, name: str) -> list[Station]:
        """Return the stations that have something of their own to do there: thousands of files ask each second."""
        return [station for station in self._stations if getattr(type(station), name) is not getattr(Station, name)]

    def admit(self, file: LocalFile) -> LocalFile:
        """Return a file as it is sent, before anything of it is read."""
        for station in self._admitting:
            file = station.admit(file)
        return file

    def take(
        self, carrier: Carrier, results: Sequence[FileResult], after: Station | None = None
    ) -> Sequence[FileResult]:
        """Take results through the stations, or through those `after` one. Raise what ends the run.

        Return the results of files that have not ended: another protocol sends them (`FileResult.falls_back`).
        """
        return self._take(carrier, results, 0 if after is None else self._stations.index(after) + 1)

    def _take(self, carrier: Carrier, results: Sequence[FileResult], first: int) -> Sequence[FileResult]:
        for number, station in enumerate(self._stations[first:], first):
            if station.one_by_one and len(results) > 1:
                return [left for one in results for left in self._take(carrier, [one], number)]
            if results:
                results = station.take(carrier, results)
        return results

    @property
    def kept(self) -> int:
        return sum(station.kept for station in self._keeping)

    def check(self) -> None:
        """Raise what has ended the thread of a station: it ends the run."""
        for station in self._keeping:
            station.check()

    def shut(self) -> None:
        """End requests of stations, from another thread."""
        for station in self._stations:
            station.shut()

    def close(self) -> None:
        for station in self._stations:
            station.close()


def _steps(context: RunContext, place: Place) -> list[Station]:
    """Return the steps of the features that are used, in their order."""
    return [
        feature.load(step)(context) for feature in used(context.settings) for at, step in feature.steps if at == place
    ]


class Finishing(Station):
    """Tell the ends of files, and let them leave their session."""

    def __init__(self, context: RunContext) -> None:
        self._ledger, self._run = context.ledger, context.run

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        """Return those that another protocol sends; their job has still to do with the session."""
        ended = [result for result in results if not result.falls_back]
        for result in ended:
            if result.gone:
                self._run.consumed(receipt_of(result))
        self._ledger.end(ended)
        if carrier.session is not None and ended:
            bad = [result.error for result in ended if result.error is not None and not result.error.stored]
            given_up = sum(not isinstance(error, errors.FileFailure) for error in bad)  # the server counts others
            carrier.session.over(carrier.api, len(ended), failed=len(bad), given_up=given_up)
        return [result for result in results if result.falls_back]
