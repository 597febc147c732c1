"""Lines of containers in the journal, whole: the engine cuts what is longer than 16 KiB."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

# The edge takes 64 KiB of headers, and JSON may write six characters for one.
LONGEST = 1 << 20


def follow(containers: list[str]) -> Iterator[tuple[float, str]]:
    """Yield each line that these containers write from now on, with its time; ends when journalctl does."""
    fields = "MESSAGE,CONTAINER_NAME,CONTAINER_PARTIAL_MESSAGE"
    command = ["journalctl", "--follow", "--lines=0", "--all", "--output=json", f"--output-fields={fields}"]
    command += [f"CONTAINER_NAME={name}" for name in containers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
        assert process.stdout  # noqa: S101  # a pipe was asked for
        yield from whole(process.stdout)


def whole(entries: Iterable[str]) -> Iterator[tuple[float, str]]:
    """Put together what was cut, container by container."""
    begun: dict[str, str] = {}
    for text in entries:
        entry = json.loads(text)
        name, message = str(entry.get("CONTAINER_NAME")), _text(entry.get("MESSAGE"))
        so_far = begun.pop(name, "") + message
        if entry.get("CONTAINER_PARTIAL_MESSAGE") != "true":
            yield int(entry["__REALTIME_TIMESTAMP"]) / 1e6, so_far
        elif len(so_far) < LONGEST:
            begun[name] = so_far


def _text(message: Any) -> str:
    # What is no UTF-8, such as half a character at a cut, journalctl writes as a list of bytes.
    if isinstance(message, list):
        return bytes(message).decode(errors="replace")
    return message if isinstance(message, str) else ""
