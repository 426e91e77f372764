"""`uploader doctor`: diagnose the connection to the server step by step."""

from uploader_cli.feature import Feature, FeatureCommand

FEATURE = Feature(
    "doctor",
    uses=("checks",),
    commands=(
        FeatureCommand(
            "doctor",
            "command:doctor",
            before="config",
            options="profile state_dir json quiet verbose server tus_endpoint max_wait proxy token_file token_command "
            "header ca_bundle client_cert insecure category",
        ),
    ),
)
