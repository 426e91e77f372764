"""`--analyze`: the server analyses the uploaded files, and the results are saved here."""

from pathlib import Path
from typing import Literal

from uploader_cli.feature import Feature, FeatureOption

FEATURE = Feature(
    "analysis",
    options=(
        FeatureOption(
            "analyze",
            default="none",
            text="KIND  Analyse the uploaded files: content, fusion or music.",
            section="Server extras",
            commands="upload",
            before="sources",
            type=Literal["none", "content", "fusion", "music"],
            stored=True,
        ),
        FeatureOption(
            "analysis_to",
            default=None,
            text="FILE|DIR  Save the analysis there. [default: the working directory]",
            section="Server extras",
            commands="upload resume",
            before="sources",
            parse="path",
            type=Path | None,
            config="user",
        ),
    ),
    fields="fields:RESULT_FIELDS",
    events="events:LINES",
    warnings=("analysis_failed",),
    view="view:ANALYSES",
    phase="phase:Analyses",
    needs_end="files are analysed at the end of a run",
    exports=(("Stage", "events:Stage"),),
)
