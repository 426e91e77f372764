"""The pytest plugin: the fixture `upload_server`, and a marker for its faults. See docs/tasks/embed.md.

pytest loads this module in every project where the package is installed, so imports are deferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.features.demo.testing import UploadServer

MARKER = "upload_faults"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, as `--strict-markers` requires."""
    usage = "upload_faults(answers={'METHOD /path': [503, …]}, **options): faults of the `upload_server`"
    config.addinivalue_line("markers", usage)


@pytest.fixture
def upload_server(request: pytest.FixtureRequest) -> Iterator[UploadServer]:
    """Start an upload server for one test on a free local port: `.url`, `.faults` and `.files`."""
    from uploader_cli.errors import UsageError
    from uploader_cli.features.demo.testing import running_server

    marks = [(mark.args, mark.kwargs) for mark in request.node.iter_markers(MARKER)]
    try:
        server = running_server(marks)
    except UsageError as error:
        message = "\n".join(filter(None, [str(error), error.hint]))
        raise pytest.fail.Exception(message, pytrace=False) from None  # pytest.fail would show both errors
    with server:
        yield server
