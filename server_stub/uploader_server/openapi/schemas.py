"""JSON schemas of response bodies (docs/protocol.md, docs/extensions.md)."""

from __future__ import annotations

from collections.abc import Iterable

from uploader_server.auth import SECRET
from uploader_server.batch.packs import KEY
from uploader_server.config import Limits
from uploader_server.feature import provided
from uploader_server.http.bodies import TYPES, Schema, one_of, records, whole
from uploader_server.http.bodies import schemas as request_schemas
from uploader_server.session import STATUSES
from uploader_server.sessions import MAX_DIGITS
from uploader_server.simulation.stages import KINDS, STAGES
from uploader_server.tus.checksums import CHECKSUMS
from uploader_server.tus.headers import EXTENSIONS, TUS_VERSION

# In the notation of `http.bodies`, which has the requests.
_RECORDS = """
Error           error:code message details?:details allowedFormats?:[text] stage? retryable?:flag timestamp?:time
Health          status=OK timestamp:time uptime:seconds memory:Memory limits:Limits OFFERS
Memory          rss:count
Limits          LIMITS
TusOffer        endpoint version:version extensions:[extension] checksumAlgorithms:[algorithm] maxSize:count
PacksOffer      endpoint maxFiles:count maxBytes:count maxFileSize:count
LookupOffer     endpoint maxFiles:count
Session         sessionId:id category:category uploadPath LIMITS OFFERS createdAt:time timestamp:time
Validation      valid:flag files:[ValidatedFile] timestamp:time
ValidatedFile   index:count valid:flag errors:[text]
Progress        sessionId:id overallStatus:status totalProgress:percent completedFiles:count failedFiles:count
                totalFiles:count receivedBytes:count totalBytes?:count files:[FileProgress]
                estimatedTimeRemaining:seconds lastUpdate:time
FileProgress    id:id originalName progress:percent status:file-status fileSize?:count receivedBytes?:count
                filePath? relativePath?
                error?
Finished        success:true sessionId:id overallStatus:status completedFiles:count failedFiles:count timestamp:time
Done            success:true message timestamp:time
Batch           sessionId:id category:category files:batch-files relativePath?:[text] ifExists?:if-exists
BatchAnswer     success:true sessionId:id files:[CompletedFile|RejectedFile] summary:Summary timestamp:time
CompletedFile   FILE status=completed fileName filePath uploadEndTime:time isValidFormat:true isValidSize:true
RejectedFile    FILE status=failed errorMessage errorCode
Summary         totalFiles:count completedFiles:count failedFiles:count totalSize:count
Pack            manifest:Manifest data:binary
PackAnswer      sessionId:id files:[PackedFile|FailedFile]
PackedFile      status=stored id:id location existing?:true
FailedFile      status=failed error message retryable:flag
LookupAnswer    files:[FoundFile|MissingFile|RefusedPath]
FoundFile       exists:true size:count location sha256?:sha256 pending?:true
MissingFile     exists:false
RefusedPath     exists:false error=INVALID_PATH message retryable:false
AnalysisAnswer  success:true data:AnalysisResult timestamp:time
AnalysisResult  analysisId:id kind:kind finalReport ...
Analysis        ANALYSIS timestamp:time result?:AnalysisResult error?:Error
"""
_LIMITS = "maxFiles:count allowedTypes:[text] maxFileSize:count mixedTypes:flag relativePaths:flag"
_ANALYSIS = (
    "analysisId:id kind:kind status:analysis-status progress:percent stage:stage message startedAt:time lastUpdate:time"
)
_FILE = (
    "id:id originalName fileSize:count fileType progress:percent uploadSpeed:speed uploadStartTime:time relativePath?"
)


ALL_TYPES: dict[str, Schema] = TYPES | {
    "code": {"type": "string", "pattern": "^[A-Z_]+$", "description": "Machine-readable code, see docs/protocol.md"},
    "id": {"type": "string", "format": "uuid"},
    "upload": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "From Location: the right to write"},
    "key": {"type": "string", "pattern": f"^{KEY.pattern}$"},
    "secret": {
        "type": "string",
        "pattern": f"^{SECRET.pattern}$",
        "description": "Needed from now on to write to the session",
    },
    "time": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "format": "binary"},
    "details": {
        "description": "A string or a list of strings",
        "type": ["string", "array"],
        "items": {"type": "string"},
    },
    "flag": {"type": "boolean"},
    "true": {"const": True},
    "false": {"const": False},
    "one": {"const": "1"},
    "count": {"type": "integer", "minimum": 0},
    "announced": whole(0, 10**MAX_DIGITS - 1),
    "percent": whole(0, 100),
    "seconds": {"type": "number", "minimum": 0, "description": "Seconds"},
    "speed": {"type": "number", "minimum": 0, "description": "Bytes per second"},
    "status": one_of(STATUSES),
    "file-status": one_of(("uploading", "completed", "failed")),
    "analysis-status": one_of(("running", "completed", "failed")),
    "kind": one_of(KINDS),
    "stage": one_of(STAGES),
    "version": {"const": TUS_VERSION},
    "extension": one_of(EXTENSIONS),
    "algorithm": one_of(CHECKSUMS),
    "batch-files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
}


def all_schemas(limits: Limits, offers: Iterable[str]) -> dict[str, Schema]:
    """Return the schemas by name for a server with these limits that offers `tus`, `packs` or `lookup`."""
    offered = " ".join(f"{name}:{name.capitalize()}Offer" for name in offers)
    text = _RECORDS + "".join(module.RECORDS for module in provided("document").values())
    for word, fields in (("LIMITS", _LIMITS), ("FILE", _FILE), ("ANALYSIS", _ANALYSIS), ("OFFERS", offered)):
        text = text.replace(word, fields)
    return request_schemas(limits) | records(text, ALL_TYPES)
