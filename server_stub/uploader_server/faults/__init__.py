"""Fault injection: the active faults (`Faults`) and scripted responses (`Answer`)."""

from uploader_server.faults.exchange import Answer
from uploader_server.faults.gates import Gate
from uploader_server.faults.state import Faults

__all__ = ["Answer", "Faults", "Gate"]
