"""Fault injection: the active faults (`Faults`) and scripted responses (`Answer`)."""

from uploader_server.faults.exchange import Answer
from uploader_server.faults.state import Faults, Gate

__all__ = ["Answer", "Faults", "Gate"]
