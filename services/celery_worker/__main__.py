"""`python3 -m celery_worker worker|beat|flower`: check the settings, then become that."""

import os
import sys

from celery_worker.main import create_app
from celery_worker.settings import WorkerSettings
from shared.settings import load_settings


def main(role: str) -> None:
    settings = load_settings(WorkerSettings)
    app = create_app(settings, "beat" if role == "beat" else "celery_worker")
    if role == "flower":
        login = settings.flower_basic_auth.get_secret_value()
        if ":" not in login:
            sys.exit("FLOWER_BASIC_AUTH is missing: set it to user:password, or do not run flower.")
        # By environment, since arguments show in the process list.
        os.environ["FLOWER_BASIC_AUTH"] = login
        app.start(["--quiet", "flower", "--port=5555", "--address=0.0.0.0"])
    elif role == "worker":
        app.start(["--quiet", "worker", "--without-mingle", "--without-gossip"])
    else:
        app.start(["--quiet", "beat"])


if len(sys.argv) != 2 or sys.argv[1] not in ("worker", "beat", "flower"):
    sys.exit("Say what to run: python3 -m celery_worker worker|beat|flower")
main(sys.argv[1])
