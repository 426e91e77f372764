"""What checks of servers have in common: the toolkit of `uploader doctor` and `uploader smoke`."""

from uploader_cli.feature import Feature

FEATURE = Feature("checks", uses=("reports",))
