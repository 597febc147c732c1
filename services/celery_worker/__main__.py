"""`python3 -m celery_worker worker|beat|flower`: check the settings, then become that.

`python3 -m celery_worker ask`: have the worker of this release run a task, and wait for its result. Berth runs this as
the check of a release (berth.check): one sentence and exit status 1 where it fails.
"""

import os
import sys

from celery.exceptions import TimeoutError as Late

from celery_worker.main import create_app, own_queue, queues
from celery_worker.settings import WorkerSettings
from shared import tracing
from shared.queue import ECHO
from shared.settings import load_settings

ASK_SECONDS = 15


def main(role: str) -> None:
    settings = load_settings(WorkerSettings)
    app = create_app(settings, "beat" if role == "beat" else "celery_worker")
    if role == "flower":
        password = settings.flower_password.get_secret_value()
        if not password:
            sys.exit("FLOWER_PASSWORD is missing: set it, or do not run flower.")
        # By environment, since arguments show in the process list.
        os.environ["FLOWER_BASIC_AUTH"] = f"{settings.flower_user}:{password}"
        app.start(["--quiet", "flower", "--port=5555", "--address=0.0.0.0"])
    elif role == "worker":
        tracing.load(settings)
        read = ",".join(queues(app, settings))
        app.start(["--quiet", "worker", "--without-mingle", "--without-gossip", f"--queues={read}"])
    elif role == "ask":
        asked = app.send_task(ECHO, args=[settings.release], queue=own_queue(settings), expires=ASK_SECONDS)
        try:
            answer = asked.get(timeout=ASK_SECONDS)
        except Late:
            answer = None
        if answer != settings.release:
            print(f"celery_worker did not complete a task within {ASK_SECONDS} s: it returned {answer}.")
            sys.exit(1)
    else:
        app.start(["--quiet", "beat"])


if len(sys.argv) != 2 or sys.argv[1] not in ("worker", "beat", "flower", "ask"):
    sys.exit("Say what to run: python3 -m celery_worker worker|beat|flower|ask")
main(sys.argv[1])
