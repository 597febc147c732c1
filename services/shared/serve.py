"""Become gunicorn, after the settings were found good."""

import os
import sys

from shared.settings import CommonSettings, load_settings


def serve(service: str, settings: type[CommonSettings]) -> None:
    """Check the settings here, where one sentence on stderr still is the last line; then run the service."""
    load_settings(settings)
    os.environ["SERVICE"] = service
    # Before anything imports the metrics library, which looks at it once.
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", f"/dev/shm/metrics-{service}-{os.getpid()}")  # noqa: S108
    arguments = ["gunicorn", "--config", "python:shared.gunicorn_conf", f"{service}.main:create_app()"]
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606  # no shell wanted
