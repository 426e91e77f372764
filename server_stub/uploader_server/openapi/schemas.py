"""JSON schemas of request and response bodies (docs/protocol.md, sections 1, 4, 6 and 9)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uploader_server.batch.lookup import MAX_FILES
from uploader_server.batch.packbody import LATEST, PackLimits
from uploader_server.config import Limits
from uploader_server.session import STATUSES
from uploader_server.simulation.stages import KINDS, STAGES
from uploader_server.tus.checksums import CHECKSUMS
from uploader_server.tus.headers import EXTENSIONS, VERSION
from uploader_server.wire import CATEGORIES

Schema = dict[str, Any]

# A record has a name and fields: `name:type` (default: text), `name?:type` if optional, `name=constant`. A type is one
# of `_types`, a record, `[type]` for a list, or `[type|type]` for a list of either. `...` allows other fields.
_RECORDS = """
Error           error:code message details?:details allowedFormats?:[text] stage? retryable?:flag timestamp?:time
Health          status=OK timestamp:time uptime:seconds memory:Memory limits:Limits OFFERS
Activity        sessions:[SessionSummary] analyses:[AnalysisSummary] receivedBytes:count timestamp:time
SessionSummary  sessionId:id category:category overallStatus:status totalProgress:percent completedFiles:count
                failedFiles:count totalFiles:count createdAt:time
AnalysisSummary ANALYSIS stages:[stage]
Memory          rss:count
Limits          LIMITS
TusOffer        endpoint version:version extensions:[extension] checksumAlgorithms:[algorithm] maxSize:count
PacksOffer      endpoint maxFiles:count maxBytes:count maxFileSize:count
LookupOffer     endpoint maxFiles:count
NewSession      category:category expectedFiles:expected-files
Session         sessionId:id category:category uploadPath LIMITS OFFERS createdAt:time timestamp:time
FilesToValidate files:files-to-validate
FileToValidate  name:name size:file-size type:name
Validation      valid:flag files:[ValidatedFile] timestamp:time
ValidatedFile   index:count valid:flag errors:[text]
Progress        sessionId:id overallStatus:status totalProgress:percent completedFiles:count failedFiles:count
                totalFiles:count files:[FileProgress] estimatedTimeRemaining:seconds lastUpdate:time
FileProgress    id:id originalName progress:percent status:file-status relativePath? error?
Finish          failed?:failed-files
Finished        success:true sessionId:id overallStatus:status completedFiles:count failedFiles:count timestamp:time
Done            success:true message timestamp:time
Batch           sessionId:id category:category files:batch-files relativePath?:[text] ifExists?:if-exists
BatchAnswer     success:true sessionId:id files:[CompletedFile|RejectedFile] summary:Summary timestamp:time
CompletedFile   FILE status=completed fileName filePath uploadEndTime:time isValidFormat:true isValidSize:true
RejectedFile    FILE status=failed errorMessage errorCode
Summary         totalFiles:count completedFiles:count failedFiles:count totalSize:count
Pack            manifest:Manifest data:binary
Manifest        sessionId files:pack-files ifExists?:if-exists
PackFile        relativePath size:pack-file-size sha256:sha256 lastModified:milliseconds
PackAnswer      sessionId:id files:[PackedFile|FailedFile]
PackedFile      status=stored id:id location existing?:true
FailedFile      status=failed error message retryable:flag
Lookup          category:category files:files-to-find digests?:digests
FileToFind      relativePath size:integer sha256?
LookupAnswer    files:[FoundFile|MissingFile|RefusedPath]
FoundFile       exists:true size:count location sha256?:sha256 pending?:true
MissingFile     exists:false
RefusedPath     exists:false error=INVALID_PATH message retryable:false
ContentAnalysis videoPath:video category?:category? sessionId?:id? ...
FusionAnalysis  video1Path:video video2Path:video category?:category? sessionId?:id? ...
MusicPrompt     fusionPlan:plan category?:category? sessionId?:id? ...
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


def _whole(lowest: int, highest: int, **more: str) -> Schema:
    return {"type": "integer", "minimum": lowest, "maximum": highest, **more}


def _one_of(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(values)}


def _listed(name: str, **limits: int) -> Schema:
    return {"type": "array", "items": ref(name), **limits}


def ref(name: str) -> Schema:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "name": {"type": "string", "minLength": 1},
    "code": {"type": "string", "pattern": "^[A-Z_]+$", "description": "Machine-readable code, see docs/protocol.md"},
    "id": {"type": "string", "format": "uuid"},
    "id?": {"type": ["string", "null"], "format": "uuid"},
    "upload": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "From Location: the right to write"},
    "key": {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "secret": {
        "type": "string",
        "pattern": "^[!-~]{22,200}$",
        "description": "Needed from now on to write to the session",
    },
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "video": {"type": "string", "minLength": 1, "description": "filePath of a batch response"},
    "time": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "format": "binary"},
    "details": {
        "description": "A string or a list of strings",
        "type": ["string", "array"],
        "items": {"type": "string"},
    },
    "plan": {"type": ["object", "string"], "minProperties": 1, "minLength": 1},
    "flag": {"type": "boolean"},
    "digests": _one_of(["known", "compute"]),
    "if-exists": _one_of(["rename", "fail"]),
    "true": {"const": True},
    "false": {"const": False},
    "one": {"const": "1"},
    "integer": {"type": "integer"},
    "count": {"type": "integer", "minimum": 0},
    "percent": _whole(0, 100),
    "seconds": {"type": "number", "minimum": 0, "description": "Seconds"},
    "milliseconds": _whole(-LATEST, LATEST, description="Milliseconds"),
    "speed": {"type": "number", "minimum": 0, "description": "Bytes per second"},
    "category": _one_of(CATEGORIES),
    "category?": {"enum": [*CATEGORIES, None]},
    "status": _one_of(STATUSES),
    "file-status": _one_of(("uploading", "completed", "failed")),
    "analysis-status": _one_of(("running", "completed", "failed")),
    "kind": _one_of(KINDS),
    "stage": _one_of(STAGES),
    "version": {"const": VERSION},
    "extension": _one_of(EXTENSIONS),
    "algorithm": _one_of(CHECKSUMS),
    "batch-files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
    "files-to-find": _listed("FileToFind", maxItems=MAX_FILES),
}


def schemas(limits: Limits, offers: Iterable[str]) -> dict[str, Schema]:
    """Return the schemas by name for a server with these limits that offers `tus`, `packs` or `lookup`."""
    packs = PackLimits()
    types = TYPES | {
        "expected-files": _whole(1, limits.max_files),
        "files-to-validate": _listed("FileToValidate", minItems=1, maxItems=limits.max_files),
        "file-size": _whole(1, limits.max_size),
        "failed-files": _whole(0, limits.max_files, description="Files that the client won't send"),
        "pack-files": _listed("PackFile", minItems=1, maxItems=packs.files),
        "pack-file-size": _whole(0, min(packs.file_size, limits.max_size)),
    }
    offered = " ".join(f"{name}:{name.capitalize()}Offer" for name in offers)
    text = _RECORDS
    for word, fields in (("LIMITS", _LIMITS), ("FILE", _FILE), ("ANALYSIS", _ANALYSIS), ("OFFERS", offered)):
        text = text.replace(word, fields)
    lines = text.replace("\n  ", " ").split("\n")[1:-1]
    return {name: _record(fields.split(), types) for name, fields in (line.split(maxsplit=1) for line in lines)}


def _record(fields: list[str], types: dict[str, Schema]) -> Schema:
    properties, required = {}, []
    for field in fields:
        left, colon, kind = field.partition(":")
        name, equals, constant = left.partition("=")
        if name != "...":
            properties[name.rstrip("?")] = {"const": constant} if equals else _type(kind if colon else "text", types)
            required += [] if name.endswith("?") else [name]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": "..." in fields}


def _type(kind: str, types: dict[str, Schema]) -> Schema:
    if not kind.startswith("["):
        return types.get(kind) or ref(kind)
    items = [_type(item, types) for item in kind[1:-1].split("|")]
    return {"type": "array", "items": {"anyOf": items} if len(items) > 1 else items[0]}
