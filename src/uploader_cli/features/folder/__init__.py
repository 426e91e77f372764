"""`--watch`: files are sent as they appear in directories, until the run is stopped."""

from uploader_cli.feature import Feature, FeatureOption

FEATURE = Feature(
    "folder",
    options=(
        FeatureOption(
            "watch",
            default=False,
            text="Send what is in the directories and what appears there, until stopped.",
            section="What to send",
            commands="upload",
            before="protocol",
            config="user",
            stored=True,
            excludes=(
                ("from_file", "a list has an end"),
                ("upload_url", "the upload is one of a single file"),
                ("check_first", "the search does not end"),
                ("fail_fast", "a file that failed is sent again later"),
            ),
        ),
        FeatureOption(
            "settle",
            default=10.0,
            text="TIME  With --watch: a file is complete when it has not changed for this time.",
            section="What to send",
            commands="upload",
            before="protocol",
            parse="options:settle",
            type=float,
            stored=True,
        ),
    ),
    unending="folder:Folder",
    warnings=("directory",),
    extra="watch",
)
