"""The features, in order: each is the folder of that name, and is gone with it and its name here."""

FEATURES: tuple[str, ...] = (
    "folder",
    "processing",
    "then",
    "plan",
    "presets",
    "shards",
    "urls",
    "fleet",
    "check",
    "reports",
    "checks",
    "doctor",
    "smoke",
    "ietf",
    "metrics",
    "on_failure",
    "github",
    "demo",
    "analysis",
    "tester",
)
