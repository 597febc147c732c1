"""All commands are run here, so that tests can replace the host with a fake."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

# Exit status of a command that timed out, as for timeout(1).
LATE = 124
LAST_LINES = 15
# So long a client takes at most to see that its container is gone.
ENDING_SECONDS = 10
# Bytes of a command's output that are read; compose writes some hundred lines.
LONGEST_OUTPUT = 2**20


def run(
    *command: str, seconds: float = 60, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command; a timeout is a failure like any other."""
    try:
        return subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            # Containers may print any bytes.
            errors="replace",
            timeout=seconds,
            check=False,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired as late:
        output = late.stderr or late.stdout or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        return subprocess.CompletedProcess(command, LATE, "", f"{text}\ntimed out after {seconds:.0f} s")


def run_bytes(
    *command: str, seconds: float = 120, given: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """As `run`, for binary input and output."""
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=seconds, check=False, env=env)
    except subprocess.TimeoutExpired as late:
        text = (late.stderr or b"") + f"\ntimed out after {seconds:.0f} s".encode()
        return subprocess.CompletedProcess(command, LATE, b"", text.strip())


def start(*command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a command, to write to it or read from it as it runs. Raises OSError if there is no such program."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)


def pass_on(*command: str, seconds: float, late: Callable[[], None], **environment: str) -> int:
    """Run a command, passing on what it prints. Return its exit status; LATE where `late` had to end it.

    Readers who are gone are no reason to stop.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
    )

    def pump(source: IO[bytes], target: IO[bytes]) -> None:
        while block := os.read(source.fileno(), 65536):
            with suppress(OSError, ValueError):
                target.write(block)
                target.flush()

    pairs = ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
    pumps = [threading.Thread(target=pump, args=pair, daemon=True) for pair in pairs]
    with process, killed_on_error(process):
        for one in pumps:
            one.start()
        try:
            ended = process.wait(seconds)
        except subprocess.TimeoutExpired:
            ended = LATE
            late()
            with suppress(subprocess.TimeoutExpired):
                process.wait(ENDING_SECONDS)
            process.kill()
        for one in pumps:
            one.join()
    return ended


def give_terminal(*command: str, **environment: str) -> int:
    """Run a command that has the caller's terminal. Return its exit status."""
    return subprocess.run(command, check=False, env={**os.environ, **environment}).returncode


@contextmanager
def killed_on_error(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill a started command if the block fails: a part of its input must not be taken for all of it."""
    try:
        yield
    except BaseException:
        process.kill()
        process.wait()
        raise


class Background:
    """A command that runs while the caller reads its output; it is killed at the end of the block."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the block
        self._process = subprocess.Popen(
            command,
            stdout=self._output,
            stderr=self._output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()

    def returncode(self) -> int | None:
        """Return its exit status; None while it is running."""
        return self._process.poll()

    def lines(self) -> list[str]:
        """Return the last lines of its output so far; pread leaves the position at which the command writes alone."""
        output = os.pread(self._output.fileno(), LONGEST_OUTPUT, 0)
        return output.decode(errors="replace").strip().splitlines()[-LAST_LINES:]


def last_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:]
