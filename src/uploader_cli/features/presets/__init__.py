"""`--preset`: the options of an upload for known tus servers and services, and for tables of the user's config file."""

from uploader_cli.feature import Feature, FeatureCommand, FeatureOption

FEATURE = Feature(
    "presets",
    options=(
        FeatureOption(
            "preset",
            default=None,
            text="NAME  With --tus-endpoint: the options for a server or service (uploader presets lists them).",
            section="How to send",
            commands="upload import",
            before="metadata",
            parse="defaults:name",
            stored=True,
            tus_only=True,
            completes="defaults:names",
        ),
    ),
    commands=(FeatureCommand("presets", "command:presets", before="watch", options="json"),),
    defaults="defaults:named",
    terms="defaults:terms",
)
