"""What the tests of the core need of the feature."""

from __future__ import annotations

from uploader_cli.features.plan.events import LimitsOrigin, PlanFile, PlanFinished, PlanSession, PlanStarted

ENUMS = {"`limits` of `plan.started`": LimitsOrigin}
EVENTS = {
    "plan of a server that was seen": PlanStarted("http://h:1", "batch", 1, LimitsOrigin.SEEN, 3, 1000, ("avi", "mp4")),
    "plan of another server": PlanStarted("http://h:1", "tus", 4, LimitsOrigin.ASSUMED, None, None, ("*",)),
    "session": PlanSession(1, "personal", 2, 10, ("mp4",), ("a",)),
    "group of files": PlanSession(1, None, 2, 10),
    "planned": PlanFile(0, "b\udcff", 5, "b\udcff", 1),
    "end of a plan": PlanFinished(2, 10, 1, 1, 1, 4),
}
