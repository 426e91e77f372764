"""`uploader smoke`: black-box checks of an upload server or a tus server."""

from uploader_cli.feature import Feature, FeatureCommand

FEATURE = Feature(
    "smoke",
    uses=("checks", "reports"),
    commands=(
        FeatureCommand(
            "smoke",
            "command:smoke",
            before="config",
            options="profile json quiet verbose server tus_endpoint proxy token_file token_command header ca_bundle "
            "client_cert insecure category",
        ),
    ),
)
