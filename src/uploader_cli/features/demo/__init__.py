"""The bundled server: `uploader demo`, `uploader serve`, and the pytest fixture `upload_server`."""

from uploader_cli.feature import Feature, FeatureCommand

FEATURE = Feature(
    "demo",
    commands=(
        FeatureCommand("demo", "command:demo", before="upload", options="progress"),
        FeatureCommand("serve", "serve:serve", before="config"),
    ),
    modules=("pytest_plugin", "testing"),
    trial="demo",
)
