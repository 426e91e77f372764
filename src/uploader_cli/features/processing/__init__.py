"""`--result-url`: a file is completed once a tus server has processed it."""

from typing import Any

from uploader_cli.feature import Feature, FeatureOption

_HOW: dict[str, Any] = {
    "section": "How to send",
    "commands": "upload",
    "before": "checksum",
    "config": "user",
    "stored": True,
    "tus_only": True,
}
FEATURE = Feature(
    "processing",
    options=(
        FeatureOption(
            "result_url",
            default=None,
            text="URL  With a tus server: ask there until a file is processed, with {url}, {id} or {header:NAME}.",
            parse="options:template",
            type=str | None,
            **_HOW,
        ),
        FeatureOption(
            "result_done",
            default=(),
            text="FIELD=VALUE  The JSON at --result-url that says that a file is processed; repeatable.",
            parse="options:condition",
            type=tuple[Any, ...],
            **_HOW,
        ),
        FeatureOption(
            "result_failed",
            default=(),
            text="FIELD=VALUE  The JSON there that says that processing has failed; repeatable.",
            parse="options:condition",
            type=tuple[Any, ...],
            **_HOW,
        ),
        FeatureOption(
            "result_link",
            default=None,
            text="FIELD  The field there with the URL of the processed file.",
            parse="options:link",
            type=str | None,
            **_HOW,
        ),
        FeatureOption(
            "result_timeout",
            default=1800.0,
            text="TIME  Time to wait until a file is processed.",
            parse="options:timeout",
            type=float,
            **_HOW,
        ),
    ),
    resolve="options:resolved",
    awaits="options:awaited",
    steps=(("last", "poller:ResultPoller"),),
)
