"""The enums of the event stream: phases, states and codes. All are closed: scripts depend on them."""

from enum import StrEnum

from uploader_cli.feature import features


class Phase(StrEnum):
    """The phase of a file. It never goes back, except from `sending` to `queued` for a retry."""

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
        return self in _TERMINAL


_TERMINAL = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.SKIPPED})


class ChannelState(StrEnum):
    """The state of the realtime channel."""

    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    POLLING = "polling"
    CLOSED = "closed"


class Transport(StrEnum):
    """The transport of progress messages: websocket, Engine.IO long polling, or HTTP polls of `/progress`."""

    WEBSOCKET = "websocket"
    POLLING = "polling"
    HTTP = "http"


class ChannelReason(StrEnum):
    """Why the channel changed its state."""

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
    """Why a file failed."""

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
    EXISTS = "exists"
    SERVER_ERROR = "server_error"
    SERVER_REFUSED = "server_refused"
    SERVER_FAILED = "server_failed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    PROTOCOL = "protocol"
    INTEGRITY = "integrity"
    vars().update({code.name.upper(): code.name for feature in features() for code in feature.codes})


class SkipReason(StrEnum):
    """Why a selected path was skipped, without a failure."""

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


class VerifiedBy(StrEnum):
    """What showed that the server has the bytes of a file: the checksums of its chunks, a digest, or the bytes."""

    CRC32C = "crc32c"
    SHA256 = "sha256"
    DIGEST = "digest"
    BYTES = "bytes"


class WarningCode(StrEnum):
    """The subject of a warning."""

    STALLED = "stalled"
    TOKEN_WITHHELD = "token_withheld"  # noqa: S105 - the name of a warning, not a secret
    INSECURE = "insecure"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    DISK_FULL = "disk_full"
    RUN_ENDED = "run_ended"
    DEADLINE = "deadline"
    SESSION_LOST = "session_lost"
    FINISH_FAILED = "finish_failed"
    CANCEL_FAILED = "cancel_failed"
    MAY_BE_STORED = "may_be_stored"
    UNCONFIRMED = "unconfirmed"
    FILE_CHANGED = "file_changed"
    FILE_LOST = "file_lost"
    FOREIGN_BYTES = "foreign_bytes"
    UNVERIFIABLE = "unverifiable"
    RECEIPTS_ONLY = "receipts_only"
    SENT_AGAIN = "sent_again"
    JOURNAL = "journal"
    PACKS = "packs"
    LOOKUP = "lookup"
    PATCH_BLOCKED = "patch_blocked"
    PROTOCOL = "protocol"
    LATENCY = "latency"
    ERROR_RATE = "error_rate"
    RECOVERED = "recovered"
    vars().update({name.upper(): name for feature in features() for name in feature.warnings})


class PauseReason(StrEnum):
    """Why all requests wait."""

    RATE_LIMIT = "rate_limit"
    UNREACHABLE = "unreachable"
    DISK_FULL = "disk_full"
