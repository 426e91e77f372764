"""What the tests of the core need of the feature."""

from __future__ import annotations

TEXTS = {
    "result_url": "{url}/later",
    "result_done": "later=9",
    "result_failed": "later=0",
    "result_link": "later",
    "result_timeout": "9",
}
NEEDED = {name: {"result_url": "{url}", "result_done": ["a=1"]} for name in TEXTS}
