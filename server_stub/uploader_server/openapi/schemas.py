"""JSON schemas of request and response bodies (docs/protocol.md, sections 1, 4, 6 and 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_server.analysis.stages import KINDS, STAGES
from uploader_server.batch import lookup
from uploader_server.batch.manifest import PackLimits
from uploader_server.session import STATUSES
from uploader_server.tus.headers import CHECKSUMS, EXTENSIONS, VERSION
from uploader_server.wire import CATEGORIES

if TYPE_CHECKING:
    from uploader_server.config import Limits

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
YES_NO: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
ID: Schema = {"type": "string", "format": "uuid"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SPEED: Schema = {"type": "number", "minimum": 0, "description": "Bytes per second"}
PERCENT: Schema = {"type": "integer", "minimum": 0, "maximum": 100}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
CATEGORY: Schema = {"type": "string", "enum": list(CATEGORIES)}
TRUE: Schema = {"const": True}
_LATEST = 1 << 53


def ref(name: str) -> Schema:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: Schema, optional: Schema | None = None) -> Schema:
    """Return the schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def listed(item: Schema, **limits: int) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": item, **limits}


def choice(*values: str) -> Schema:
    """Return the schema of one of several strings."""
    return {"type": "string", "enum": list(values)}


def schemas(limits: Limits, offers: dict[str, Any]) -> dict[str, Schema]:
    """Return the schemas by name for a server with these limits; `offers` is as in `/health`."""
    return {
        "Error": _error(),
        **_plan(limits, offers),
        **_sessions(limits),
        **_files(),
        **(_packs(limits) if "packs" in offers else {}),
        **_analyses(),
    }


def _error() -> Schema:
    more = {
        "details": {"description": "A string or a list of strings", "type": ["string", "array"], "items": TEXT},
        "allowedFormats": listed(TEXT),
        "stage": TEXT,
        "retryable": YES_NO,
        "timestamp": TIME,
    }
    code = {"type": "string", "pattern": "^[A-Z_]+$", "description": "Machine-readable code, see docs/protocol.md"}
    return record({"error": code, "message": TEXT}, more)


def _plan(limits: Limits, offers: dict[str, Any]) -> dict[str, Schema]:
    """Return the schemas of `/health` and of new sessions."""
    shown = {
        "maxFiles": COUNT,
        "allowedTypes": listed(TEXT),
        "maxFileSize": COUNT,
        "mixedTypes": YES_NO,
        "relativePaths": YES_NO,
    }
    known = {
        "tus": record(
            {
                "endpoint": TEXT,
                "version": {"const": VERSION},
                "extensions": listed(choice(*EXTENSIONS)),
                "checksumAlgorithms": listed(choice(*CHECKSUMS)),
                "maxSize": COUNT,
            }
        ),
        "packs": record({"endpoint": TEXT, "maxFiles": COUNT, "maxBytes": COUNT, "maxFileSize": COUNT}),
        "lookup": record({"endpoint": TEXT, "maxFiles": COUNT}),
    }
    offered = {name: known[name] for name in offers}
    health = {
        "status": {"const": "OK"},
        "timestamp": TIME,
        "uptime": {"type": "number", "minimum": 0, "description": "Seconds"},
        "memory": record({"rss": COUNT}),
        "limits": record(shown),
        **offered,
    }
    session = {
        "sessionId": ID,
        "category": CATEGORY,
        "uploadPath": TEXT,
        **shown,
        **offered,
        "createdAt": TIME,
        "timestamp": TIME,
    }
    expected = {"type": "integer", "minimum": 1, "maximum": limits.max_files}
    return {
        "Health": record(health),
        "NewSession": record({"category": CATEGORY, "expectedFiles": expected}),
        "Session": record(session),
    }


def _sessions(limits: Limits) -> dict[str, Schema]:
    file = {
        "name": {"type": "string", "minLength": 1},
        "size": {"type": "integer", "minimum": 1, "maximum": limits.max_size},
        "type": {"type": "string", "minLength": 1, "description": "MIME type"},
    }
    judged = record({"index": COUNT, "valid": YES_NO, "errors": listed(TEXT)})
    running = record(
        {"id": ID, "originalName": TEXT, "progress": PERCENT, "status": _file_status()},
        {"relativePath": TEXT, "error": TEXT},
    )
    counts = {"completedFiles": COUNT, "failedFiles": COUNT}
    progress = {
        "sessionId": ID,
        "overallStatus": choice(*STATUSES),
        "totalProgress": PERCENT,
        **counts,
        "totalFiles": COUNT,
        "files": listed(running),
        "estimatedTimeRemaining": {"type": "number", "minimum": 0, "description": "Seconds"},
        "lastUpdate": TIME,
    }
    finished = {"success": TRUE, "sessionId": ID, "overallStatus": choice(*STATUSES), **counts, "timestamp": TIME}
    failed = {"type": "integer", "minimum": 0, "maximum": limits.max_files}
    return {
        "FilesToValidate": record({"files": listed(record(file), minItems=1, maxItems=limits.max_files)}),
        "Validation": record({"valid": YES_NO, "files": listed(judged), "timestamp": TIME}),
        "Progress": record(progress),
        "Finish": record({}, {"failed": {**failed, "description": "Files that the client won't send"}}),
        "Finished": record(finished),
        "Done": record({"success": TRUE, "message": TEXT, "timestamp": TIME}),
    }


def _files() -> dict[str, Schema]:
    common = {
        "id": ID,
        "originalName": TEXT,
        "fileSize": COUNT,
        "fileType": TEXT,
        "progress": PERCENT,
        "uploadSpeed": SPEED,
        "uploadStartTime": TIME,
    }
    stored = {
        "status": {"const": "completed"},
        "fileName": TEXT,
        "filePath": TEXT,
        "uploadEndTime": TIME,
        "isValidFormat": TRUE,
        "isValidSize": TRUE,
    }
    failed = {"status": {"const": "failed"}, "errorMessage": TEXT, "errorCode": TEXT}
    path = {"relativePath": TEXT}
    batch = {
        "sessionId": ID,
        "category": CATEGORY,
        "files": listed({"type": "string", "format": "binary"}, minItems=1),
    }
    summary = record({"totalFiles": COUNT, "completedFiles": COUNT, "failedFiles": COUNT, "totalSize": COUNT})
    answer = {
        "success": TRUE,
        "sessionId": ID,
        "files": listed({"anyOf": [record({**common, **stored}, path), record({**common, **failed}, path)]}),
        "summary": summary,
        "timestamp": TIME,
    }
    paths = {**listed(TEXT), "description": "The path of each file, in order; optional"}
    return {"Batch": record(batch, {"relativePath": paths}), "BatchAnswer": record(answer)}


def _packs(limits: Limits) -> dict[str, Schema]:
    most = PackLimits(file_size=min(PackLimits().file_size, limits.max_size))
    entry = {
        "relativePath": TEXT,
        "size": {"type": "integer", "minimum": 0, "maximum": most.file_size},
        "sha256": SHA256,
        "lastModified": {"type": "integer", "minimum": -_LATEST, "maximum": _LATEST, "description": "Milliseconds"},
    }
    stored = record({"status": {"const": "stored"}, "id": ID, "location": TEXT}, {"existing": TRUE})
    failed = record({"status": {"const": "failed"}, "error": TEXT, "message": TEXT, "retryable": YES_NO})
    manifest = record({"sessionId": TEXT, "files": listed(record(entry), minItems=1, maxItems=most.files)})
    asked = record({"relativePath": TEXT, "size": {"type": "integer"}}, {"sha256": TEXT})
    found = record({"exists": TRUE, "size": COUNT, "location": TEXT}, {"sha256": SHA256})
    absent = record({"exists": {"const": False}})
    return {
        "Manifest": manifest,
        "Pack": record({"manifest": ref("Manifest"), "data": {"type": "string", "format": "binary"}}),
        "PackAnswer": record({"sessionId": ID, "files": listed({"anyOf": [stored, failed]})}),
        "Lookup": record({"category": CATEGORY, "files": listed(asked, maxItems=lookup.MAX_FILES)}),
        "LookupAnswer": record({"files": listed({"anyOf": [found, absent]})}),
    }


def _analyses() -> dict[str, Schema]:
    nullable_category = {"enum": [*CATEGORIES, None]}
    nullable_id = {"type": ["string", "null"], "format": "uuid"}
    more = {"category": nullable_category, "sessionId": nullable_id}
    path = {"type": "string", "minLength": 1, "description": "filePath of a batch response"}
    plan = {"type": ["object", "string"], "minProperties": 1, "minLength": 1}
    requests = {
        "ContentAnalysis": {"videoPath": path},
        "FusionAnalysis": {"video1Path": path, "video2Path": path},
        "MusicPrompt": {"fusionPlan": plan},
    }
    result = {"type": "object", "properties": {"analysisId": ID, "kind": choice(*KINDS), "finalReport": TEXT}}
    result["required"] = ["analysisId", "kind", "finalReport"]
    state = {
        "analysisId": ID,
        "kind": choice(*KINDS),
        "status": choice("running", "completed", "failed"),
        "progress": PERCENT,
        "stage": choice(*STAGES),
        "message": TEXT,
        "startedAt": TIME,
        "lastUpdate": TIME,
        "timestamp": TIME,
    }
    return {
        # Unknown keys are ignored.
        **{name: {**record(fields, more), "additionalProperties": True} for name, fields in requests.items()},
        "AnalysisAnswer": record({"success": TRUE, "data": result, "timestamp": TIME}),
        "Analysis": record(state, {"result": result, "error": ref("Error")}),
    }


def _file_status() -> Schema:
    return choice("uploading", "completed", "failed")
