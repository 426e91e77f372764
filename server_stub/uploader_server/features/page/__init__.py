"""The web page at `/`, and the list of sessions that it shows (docs/web.md)."""

from uploader_server.feature import Feature, FeatureOption

FEATURE = Feature(
    "page",
    options=(
        FeatureOption(
            "ui",
            default=True,
            flag="--no-ui",
            text="Disable the web page at / and the list of sessions.",
            before="upload_ttl",
        ),
    ),
    part="page:Page",
    paths=(("/api/activity", "activity"), ("/ui/", "page")),
    free="page:FILES",
    document="description",
)
