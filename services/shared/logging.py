"""One JSON object per line on stdout, with secrets masked and tracebacks in a field."""

import json
import logging
import logging.config
import re
import sys
import time
from contextvars import ContextVar
from typing import Any

from shared import tracing

# Of the request that is being answered, or that a task was sent for: every line logged meanwhile carries it.
request_id: ContextVar[str] = ContextVar("request_id", default="")

_SECRETS = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"  # a JWT
    r"|(?<=://)[^\s/@\"']*:[^\s/@\"']+(?=@)"  # user:password in a URI
    r"|(?i:(?<=bearer )|(?<=basic ))[\w.~+/=-]{8,}"
    r"|(?i:(?:token|password|secret|refresh_token)[\w]*[\\\"']*\s*[=:]\s*[\\\"']*)[^\s\"'\\&,;}]+"
)
# Besides a record's own fields: uvicorn's coloured copy of the message, and celery's of the arguments.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"color_message", "data", "taskName"}


def mask(text: str) -> str:
    """Take out what looks like a secret: tokens, passwords, credentials in URIs."""
    return _SECRETS.sub("***", text)


class JsonFormatter(logging.Formatter):
    """Renders a record, and whatever was passed as `extra`, as one line of JSON."""

    def __init__(self, **constant: str) -> None:
        super().__init__()
        self._constant = {name: value for name, value in constant.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        whole = int(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._constant,
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if identity := request_id.get():
            line.setdefault("request_id", identity)
        line.update(tracing.active().ids())
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return mask(json.dumps(line, default=str))


def logging_config(service: str, level: str, release: str, colour: str, every_request: bool = False) -> dict[str, Any]:
    """A dictConfig that sends every logger of the process through the JSON formatter.

    Where an edge stands in front, it logs each request, and a service only what went wrong in it.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter, "service": service, "release": release, "colour": colour}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": sys.stdout}},
        "root": {"level": level, "handlers": ["out"]},
        # The libraries' own chatter at INFO says nothing that our lines do not.
        "loggers": {
            "access": {"level": "INFO" if every_request else "WARNING"},
            **{
                name: {"level": "WARNING"} for name in ("pymongo", "kombu", "redis", "celery.worker.strategy", "httpx2")
            },
        },
    }


def configure_logging(service: str, level: str, release: str, colour: str, every_request: bool = False) -> None:
    # Nobody reads these fields, and each costs a call per line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(logging_config(service, level, release, colour, every_request))
