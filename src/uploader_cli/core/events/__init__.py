"""The events of a run, as frozen values, with their enums (`ev.Phase`, `ev.FailureCode` …).

Workers put them into one queue; `reducer.reduce` applies them and returns those that changed the state. Those of
`stream` are the lines of `--json`; those of `facts` are for the state, reports and the log.

Byte counts are totals since the start of an attempt, never deltas; times are in seconds.
"""

from uploader_cli.core.codes import *
from uploader_cli.core.events.event import *
from uploader_cli.core.events.facts import *
from uploader_cli.core.events.stream import *
