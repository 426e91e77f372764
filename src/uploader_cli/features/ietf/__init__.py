"""The checks `ietf-…` of `uploader smoke`: what servers of the IETF's resumable uploads do.

Sections are those of draft-ietf-httpbis-resumable-upload in its text of 1 July 2026.
"""

from uploader_cli.feature import Feature

FEATURE = Feature(
    "ietf",
    uses=("checks", "smoke"),
    brings=tuple(
        ("smoke", module)
        for module in ("creation", "retrieval", "appending", "concurrency", "limits", "digests", "versions")
    ),
)
