"""gunicorn's configuration, the same for every service. Started by shared.serve."""

import os
import shutil
from pathlib import Path
from typing import Any

from prometheus_client import multiprocess

from shared.logging import logging_config

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


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001
    """Keep a dead worker's counters, drop its gauges."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:  # noqa: ARG001
    shutil.rmtree(METRICS_DIRECTORY)
