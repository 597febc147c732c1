"""gunicorn's configuration, the same for every service. Started by shared.serve."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

from prometheus_client import multiprocess

from shared.logging import logging_config
from shared.metrics import lost_workers

SERVICE = os.environ["SERVICE"]

# Inside a container; its networks decide who reaches it.
bind = os.environ.get("BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "shared.worker.Worker"
# The only writable place in a read-only container.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True
# Longer than the proxy keeps an idle connection: with gunicorn's 2 s one in fifty spaced requests met
# a connection that was just being closed.
keepalive = 75
graceful_timeout = 30
timeout = 60
# Off, so that a HUP makes workers that read their secrets anew.
preload_app = False
accesslog = None
logconfig_dict = logging_config(
    SERVICE,
    os.environ.get("LOG_LEVEL") or "INFO",
    os.environ.get("RELEASE", ""),
    os.environ.get("COLOUR", ""),
)

# gunicorn's own handler would write lines that are not JSON. uvicorn's logger borrows this one.
logconfig_dict["loggers"]["gunicorn.error"] = {"level": "INFO", "handlers": ["out"], "propagate": False}

METRICS_DIRECTORY = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])


def on_starting(server: Any) -> None:  # noqa: ARG001  # gunicorn passes it
    METRICS_DIRECTORY.mkdir(parents=True, exist_ok=True)


# Workers that were told to end: of those of a reload, and at the end.
_TOLD: set[int] = set()


def when_ready(server: Any) -> None:
    """Remember which workers are told to end. gunicorn has no hook for that, nor does child_exit know how one ended."""
    # There from the start: an increase is seen only of what was 0 before.
    lost_workers()
    kill = server.kill_worker

    def kill_worker(pid: int, sig: int) -> None:
        # The other two are for one that hangs.
        if sig not in (signal.SIGABRT, signal.SIGKILL):
            _TOLD.add(pid)
        kill(pid, sig)

    server.kill_worker = kill_worker


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001
    """Count a worker that nobody told to end. Keep a dead worker's counters, drop its gauges."""
    if worker.pid in _TOLD:
        _TOLD.remove(worker.pid)
    else:
        lost_workers().inc()
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:  # noqa: ARG001
    shutil.rmtree(METRICS_DIRECTORY)
