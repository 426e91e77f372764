"""Faults on demand: what is broken (`Faults`), and scripted answers (`Answer`)."""

from uploader_server.faults.state import Answer, Faults, Gate

__all__ = ["Answer", "Faults", "Gate"]
