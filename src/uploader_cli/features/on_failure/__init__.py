"""`--on-failure`: a command of the user runs when a run needs attention."""

from uploader_cli.feature import Feature, FeatureOption

FEATURE = Feature(
    "on_failure",
    options=(
        FeatureOption(
            "on_failure",
            default=None,
            text="CMD  Run this command when a run needs attention; its stdin is the report.",
            section="Output",
            commands="upload import resume",
            before="server",
            parse="command",
            config="user",
            secret=True,
        ),
    ),
    observer="attention:observer",
)
