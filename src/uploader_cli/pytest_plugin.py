"""The pytest plugin: a fixture `upload_server`, and a marker for what goes wrong there. See docs/testing.md.

pytest loads this module in every project where the package is installed: so it imports nothing until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.testing import UploadServer

MARKER = "upload_faults"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known to `--strict-markers`."""
    usage = "upload_faults(answers={'METHOD /path': [503, …]}, **options): what goes wrong on the `upload_server`"
    config.addinivalue_line("markers", usage)


@pytest.fixture
def upload_server(request: pytest.FixtureRequest) -> Iterator[UploadServer]:
    """An upload server of this test's own, on a free port of this machine: `.url`, `.faults` and `.files`."""
    from uploader_cli.errors import UsageError
    from uploader_cli.testing import running_server

    marks = [(mark.args, mark.kwargs) for mark in request.node.iter_markers(MARKER)]
    try:
        server = running_server(marks)
    except UsageError as error:
        told = "\n".join(filter(None, [str(error), error.hint]))
        raise pytest.fail.Exception(told, pytrace=False) from None  # as pytest.fail, but said once
    with server:
        yield server
