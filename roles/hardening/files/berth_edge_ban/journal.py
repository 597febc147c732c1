"""Reads complete lines of containers from the journal: the engine splits lines longer than 16 KiB."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

# The edge accepts 64 KiB of headers, and JSON may need six characters for one.
LONGEST = 1 << 20


def follow(containers: list[str]) -> Iterator[tuple[float, str]]:
    """Yield each new line of these containers with its time, until journalctl exits."""
    fields = "MESSAGE,CONTAINER_NAME,CONTAINER_PARTIAL_MESSAGE"
    command = ["journalctl", "--follow", "--lines=0", "--all", "--output=json", f"--output-fields={fields}"]
    command += [f"CONTAINER_NAME={name}" for name in containers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
        assert process.stdout  # noqa: S101  # stdout=PIPE
        yield from whole(process.stdout)


def whole(entries: Iterable[str]) -> Iterator[tuple[float, str]]:
    """Join the pieces of split lines, separately for each container."""
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
    # journalctl writes invalid UTF-8, such as half a character where a line was split, as a list of bytes.
    if isinstance(message, list):
        return bytes(message).decode(errors="replace")
    return message if isinstance(message, str) else ""
