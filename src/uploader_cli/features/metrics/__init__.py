"""`--metrics-file`: the numbers of a run for Prometheus."""

from pathlib import Path

from uploader_cli.feature import Feature, FeatureOption

FEATURE = Feature(
    "metrics",
    options=(
        FeatureOption(
            "metrics_file",
            default=None,
            text="FILE.prom  Write metrics during the run, for node_exporter (Prometheus), which reads only *.prom.",
            section="Output",
            commands="upload import resume",
            before="server",
            parse="path",
            type=Path | None,
            config="user",
            writes="file:check",
        ),
    ),
    writer="file:writer",
)
