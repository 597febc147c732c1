"""The one place that starts programs, so that a test can put a host of its own in its place."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

LATE = 124


def run(
    *command: str, seconds: float = 120, given: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; a time-out counts as a failure like any other."""
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=seconds, check=False, env=env)
    except subprocess.TimeoutExpired as late:
        text = (late.stderr or b"") + f"\nnot done within {seconds:.0f} s".encode()
        return subprocess.CompletedProcess(command, LATE, b"", text.strip())


def start(*command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a command that is given a stream, or gives one. Raises OSError where there is no such program."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
