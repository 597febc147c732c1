"""Traces, off until TRACES_ENDPOINT names who collects them.

What follows is all that the rest of a service knows of them. What makes and sends spans is loaded by shared.spans, and
that only where traces are on: off costs a request nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from shared.settings import CommonSettings


class Tracing:
    """No traces."""

    def fastapi(self, quiet: frozenset[str]) -> dict[str, Any]:  # noqa: ARG002  # for those who trace
        """Return FastAPI's own settings about telemetry; requests for the quiet paths are not traced."""
        # Figures and logs are ours, and nothing is to be found in the environment by itself.
        return {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

    def ids(self) -> dict[str, str]:
        """Return the trace and the span that a line logged now belongs to."""
        return {}

    @contextmanager
    def sending(self, task: str) -> Iterator[None]:  # noqa: ARG002  # for those who trace
        """Stand around the sending of a task."""
        yield

    def trace_tasks(self) -> None:
        """Trace the tasks that this process runs, too."""

    def headers(self) -> dict[str, str]:
        """Return what a message carries, so that its task belongs to the trace that it was sent in."""
        return {}

    def close(self) -> None:
        """Send what waits, or give it up within seconds."""


_active = Tracing()


def active() -> Tracing:
    return _active


def load(settings: CommonSettings) -> None:
    """Load what begin needs: before processes are forked, as it takes a second where a machine is busy."""
    if settings.traces_endpoint:
        import_module("shared.spans")


def begin(service: str, settings: CommonSettings) -> Tracing:
    """Trace from here on, if the settings say so.

    For each process, after it was forked and before it opens clients: a thread sends the spans.
    """
    global _active
    if settings.traces_endpoint:
        _active = import_module("shared.spans").SpanTracing(service, settings)
    return _active
