"""The closed vocabularies of the event stream: phases, states, and codes that scripts branch on."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a file stands. No way back, except `sending` → `queued` when it is tried again."""

    QUEUED = "queued"
    CHECKING = "checking"
    SENDING = "sending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def terminal(self) -> bool:
        """True once nothing more can happen to the file."""
        return self in _TERMINAL


_TERMINAL = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.SKIPPED})


class ChannelState(StrEnum):
    """How the server's progress reaches us."""

    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    POLLING = "polling"
    CLOSED = "closed"


class Transport(StrEnum):
    """What carries the channel: a websocket, Engine.IO long polling, or plain HTTP polls of `/progress`."""

    WEBSOCKET = "websocket"
    POLLING = "polling"
    HTTP = "http"


class ChannelReason(StrEnum):
    """Why the channel moved. Closed: scripts branch on it."""

    START = "start"
    CONNECTED = "connected"
    RECOVERED = "recovered"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    HANDSHAKE_FAILED = "handshake_failed"
    LOST = "lost"
    SERVER_CLOSED = "server_closed"
    RETRIES_EXHAUSTED = "retries_exhausted"
    DEADLINE = "deadline"
    FINISHED = "finished"


class FailureCode(StrEnum):
    """Why a file failed. Closed: scripts branch on it."""

    REFUSED_TYPE = "refused_type"
    REFUSED_SIZE = "refused_size"
    EMPTY = "empty"
    BAD_LINE = "bad_line"
    MISMATCH = "mismatch"
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    CHANGED = "changed"
    NETWORK = "network"
    TIMEOUT = "timeout"
    TOO_SLOW = "too_slow"
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    IN_USE = "in_use"
    SERVER_ERROR = "server_error"
    SERVER_REFUSED = "server_refused"
    SERVER_FAILED = "server_failed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    PROTOCOL = "protocol"
    INTEGRITY = "integrity"


class SkipReason(StrEnum):
    """Why a selected path was left out without being a failure."""

    TYPE = "type"
    SIZE = "size"
    EMPTY = "empty"
    SYMLINK = "symlink"
    SPECIAL = "special"
    DUPLICATE = "duplicate"
    PRESENT = "present"
    RECEIPT = "receipt"
    FAIL_FAST = "fail_fast"
    NOT_TRIED = "not_tried"


class WarningCode(StrEnum):
    """What a warning is about."""

    STALLED = "stalled"
    TOKEN_WITHHELD = "token_withheld"  # noqa: S105 - the name of a warning, not a secret
    INSECURE = "insecure"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    DISK_FULL = "disk_full"
    RUN_ENDED = "run_ended"
    SESSION_LOST = "session_lost"
    FINISH_FAILED = "finish_failed"
    CANCEL_FAILED = "cancel_failed"
    MAY_BE_STORED = "may_be_stored"
    FILE_CHANGED = "file_changed"
    FILE_LOST = "file_lost"
    UNVERIFIABLE = "unverifiable"
    RECEIPTS_ONLY = "receipts_only"
    JOURNAL = "journal"
    PACKS = "packs"
    ANALYSIS_FAILED = "analysis_failed"
    LATENCY = "latency"
    ERROR_RATE = "error_rate"
    RECOVERED = "recovered"


class PauseReason(StrEnum):
    """Why every call waits."""

    RATE_LIMIT = "rate_limit"
    UNREACHABLE = "unreachable"
    DISK_FULL = "disk_full"


class LimitsOrigin(StrEnum):
    """How it is known what a server takes: it said so when it was last asked, or nobody ever asked."""

    SEEN = "seen"
    ASSUMED = "assumed"
