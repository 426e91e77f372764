"""Prometheus metrics at `GET /metrics` (bundled), with one registry per application.

Labels have fixed sets of values: paths are mapped to routes, unusual methods to OTHER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uploader_server.app import UploadApp
from uploader_server.feature import features
from uploader_server.http.tracking import LoggedRequest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "WEBSOCKET"})
SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 300.0)
"""Upper bounds of the latency buckets in seconds."""

_ROUTES = (
    ("/socket.io", "realtime"),
    ("/api/upload/files", "tus"),
    ("/api/upload/progress/", "progress"),
    ("/api/upload/batch", "batch"),
    ("/api/upload/packs", "packs"),
    ("/api/upload/lookup", "lookup"),
    ("/api/upload/session", "session"),
    ("/api/upload/validate", "validate"),
    ("/api/upload/cancel/", "cancel"),
    ("/api/upload/file/", "delete"),
    ("/api/ai/analysis/", "analysis-status"),
    ("/api/ai/", "analysis"),
    ("/uploads/", "stored"),
    ("/health", "health"),
    ("/openapi.json", "openapi"),
    *(path for feature in features() for path in feature.paths),
)


def route_of(path: str) -> str:
    return next((route for start, route in _ROUTES if path.startswith(start)), "other")


class Metrics(Collector):
    def __init__(self, app: UploadApp) -> None:
        self._gauges: dict[tuple[str, str, str], Callable[[], dict[str, int]]] = {}
        """Functions that return numbers by label value; by name, help, and label (empty: a single value)."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)
        own: Any = {"registry": self.registry}
        self._requests = Counter("uploader_requests", "Requests with a response", ["method", "route", "status"], **own)
        self._errors = Counter("uploader_errors", "Failed requests: client, server, unanswered", ["kind"], **own)
        self._received = Counter("uploader_received_bytes", "Bytes of request bodies", ["route"], **own)
        self._seconds = Histogram("uploader_request_seconds", "Response time", ["route"], buckets=SECONDS, **own)
        refused = "Realtime connections refused, or closed as slow"
        self._counters = {
            "events": Counter("uploader_events", "Events sent to rooms and joining clients", ["event"], **own),
            "joins": Counter("uploader_joins", "Joins by outcome", ["outcome"], **own),
            "refused": Counter("uploader_refused_connections", refused, ["reason"], **own),
            "analyses": Counter("uploader_analyses", "Ended analyses", ["kind", "status"], **own),
        }
        state, log = app.state, app.log
        self._gauge("uploader_sockets", "Realtime connections", "transport", state.realtime.sockets)
        self._gauge("uploader_sessions", "Known upload sessions", "status", state.backend.statuses)
        self._gauge("uploader_analyses_running", "Running analyses", "", lambda: {"": state.analyses.running()})
        self._gauge("uploader_held_bytes", "Memory held by requests", "", lambda: {"": state.memory.used})
        text = "Lines of the access log that could not be written"
        self._gauge("uploader_dropped_log_lines", text, "", lambda: {"": log.dropped})
        state.counts.told.append(self._count)
        app.keep.append(self.request)

    def routes(self) -> list[Route]:
        return [Route("/metrics", self._serve)]

    async def _serve(self, _: Request) -> Response:
        return Response(self.text(), headers={"content-type": CONTENT_TYPE})

    def _count(self, what: str, *labels: str) -> None:
        self._counters[what].labels(*labels).inc()

    def _gauge(self, name: str, text: str, label: str, values: Callable[[], dict[str, int]]) -> None:
        """Add a gauge whose values are computed at each scrape."""
        self._gauges[name, text, label] = values

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for (name, text, label), values in self._gauges.items():
            family = GaugeMetricFamily(name, text, labels=[label] if label else [])
            for value, number in values().items():
                family.add_metric([value] if label else [], number)
            yield family

    def request(self, entry: LoggedRequest) -> None:
        """Count one request; long polls and websockets are not in the latency histogram."""
        route = route_of(entry.path)
        method = entry.method if entry.method in METHODS else "OTHER"
        self._requests.labels(method, route, str(entry.status)).inc()
        if entry.received:
            self._received.labels(route).inc(entry.received)
        if route != "realtime":
            self._seconds.labels(route).observe(entry.seconds)
        if entry.status >= 400 or entry.status == 0:
            kind = "unanswered" if entry.status == 0 else "client" if entry.status < 500 else "server"
            self._errors.labels(kind).inc()

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
