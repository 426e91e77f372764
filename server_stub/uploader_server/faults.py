"""What tests import of `simulation`: the active faults, and scripted responses (docs/tasks/embed.md)."""

from uploader_server.simulation.exchange import Answer
from uploader_server.simulation.state import Faults

__all__ = ["Answer", "Faults"]
