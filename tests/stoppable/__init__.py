"""The bundled server as a process that a test kills, fails or delays at its n-th call that changes files."""

from stoppable.calls import CALLS, Plan  # before the server is imported

__all__ = ["CALLS", "Plan"]
