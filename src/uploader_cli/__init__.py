"""Upload files in sessions, follow the server's progress and resume after interruptions.

from uploader_cli import upload
result = upload(["videos"], server="http://localhost:8005")
"""

from __future__ import annotations

TYPE_CHECKING = False  # without an import of typing, as in `__main__`
if TYPE_CHECKING:
    from uploader_cli.core.events import ChannelChanged as ChannelChanged
    from uploader_cli.core.events import ChannelState as ChannelState
    from uploader_cli.core.events import Event as Event
    from uploader_cli.core.events import FailureCode as FailureCode
    from uploader_cli.core.events import FileCompleted as FileCompleted
    from uploader_cli.core.events import FileFailed as FileFailed
    from uploader_cli.core.events import FileProgress as FileProgress
    from uploader_cli.core.events import FileRetry as FileRetry
    from uploader_cli.core.events import FileSkipped as FileSkipped
    from uploader_cli.core.events import FileStarted as FileStarted
    from uploader_cli.core.events import Phase as Phase
    from uploader_cli.core.events import RunFinished as RunFinished
    from uploader_cli.core.events import RunStarted as RunStarted
    from uploader_cli.core.events import RunWarning as RunWarning
    from uploader_cli.core.events import ServerMessage as ServerMessage
    from uploader_cli.core.events import SessionCreated as SessionCreated
    from uploader_cli.core.events import SessionFinished as SessionFinished
    from uploader_cli.core.events import SkipReason as SkipReason
    from uploader_cli.core.events import VerifiedBy as VerifiedBy
    from uploader_cli.core.events import WarningCode as WarningCode
    from uploader_cli.errors import AnswerError as AnswerError
    from uploader_cli.errors import FileError as FileError
    from uploader_cli.errors import Interrupted as Interrupted
    from uploader_cli.errors import NetworkError as NetworkError
    from uploader_cli.errors import NotAnUploadServer as NotAnUploadServer
    from uploader_cli.errors import ProtocolError as ProtocolError
    from uploader_cli.errors import Unauthorized as Unauthorized
    from uploader_cli.errors import UploaderError as UploaderError
    from uploader_cli.errors import UsageError as UsageError
    from uploader_cli.features.public import *  # noqa: F403 - names that features export
    from uploader_cli.library import Uploader as Uploader
    from uploader_cli.library import upload as upload
    from uploader_cli.library import upload_async as upload_async
    from uploader_cli.result import Progress as Progress
    from uploader_cli.result import Receipt as Receipt
    from uploader_cli.result import Result as Result
    from uploader_cli.settings import Settings as Settings

__version__ = "1.0.0rc1"

_MODULES = {
    "core.events": (
        "ChannelChanged ChannelState Event FailureCode FileCompleted FileFailed FileProgress FileRetry FileSkipped "
        "FileStarted Phase RunFinished RunStarted RunWarning ServerMessage SessionCreated SessionFinished "
        "SkipReason VerifiedBy WarningCode"
    ),
    "errors": (
        "AnswerError FileError Interrupted NetworkError NotAnUploadServer ProtocolError Unauthorized UploaderError "
        "UsageError"
    ),
    "library": "Uploader upload upload_async",
    "result": "Progress Receipt Result",
    "settings": "Settings",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import on first use: `uploader --help` must not pay for requests and Socket.IO."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name == "__all__" or name[:1].isupper():  # not for modules, of which some are imported before all else
        from uploader_cli.feature import exported

        if name == "__all__":
            return sorted([*_HOME, *exported()])
        if name in exported():
            feature, place = exported()[name]
            return feature.load(place)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from uploader_cli.feature import exported

    return sorted({*globals(), *_HOME, *exported()})
