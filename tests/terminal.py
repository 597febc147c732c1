"""Run a command as a person does: on a terminal, which is how programs know that they can ask."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Colours, and what else moves a cursor.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
# Ansible discards what was typed before it reads, which is a moment after its question stands there. So a question is
# answered when it has stood for a moment, and again where only the answer's echo followed.
STANDS_SECONDS = 0.3
AGAIN_SECONDS = 5


@dataclass(frozen=True)
class Seen:
    """What stood on the terminal, and the exit status; None where the command still waited when its time was over."""

    text: str
    status: int | None
    # With all that moved the cursor, and colours.
    raw: str = field(default="", compare=False)

    @property
    def line(self) -> str:
        """The text without its line breaks, in which a sentence can be found however it was wrapped."""
        return re.sub(r"\s+", " ", self.text)


def _seen(shown: bytes, status: int | None) -> Seen:
    raw = shown.decode(errors="replace")
    return Seen(CONTROL.sub("", raw), status, raw)


def _take_terminal() -> None:
    """In the child, which leads a session of its own: make its standard input the session's terminal (/dev/tty)."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_terminal(
    command: list[str],
    folder: Path,
    seconds: float,
    typed: str = "",
    environment: Mapping[str, str] | None = None,
    enter_after: float | None = None,
    question: bytes = rb": $",
) -> Seen:
    """Run a command on a terminal.

    Each line of `typed` is typed at a question, the pattern of what then stands last. With `enter_after`, Enter is
    pressed after so many seconds without a word, as by somebody who takes every default.
    """
    terminal, its_end = pty.openpty()
    answers = typed.splitlines(keepends=True)
    shown, answered, answer = b"", 0, b""
    deadline = time.monotonic() + seconds
    last = time.monotonic()
    try:
        with subprocess.Popen(
            command,
            cwd=folder,
            env={**(os.environ if environment is None else environment), "TERM": "xterm", "COLUMNS": "160"},
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            start_new_session=True,
            preexec_fn=_take_terminal,
        ) as run:
            os.close(its_end)
            while run.poll() is None or select.select([terminal], [], [], 0)[0]:
                if time.monotonic() > deadline:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()
                    return _seen(shown, None)
                if not select.select([terminal], [], [], 0.1)[0]:
                    silent = time.monotonic() - last
                    pressed = b""
                    if enter_after is not None and silent > enter_after:
                        pressed = b"\n"
                    elif answers and silent > STANDS_SECONDS and re.search(question, shown[answered:]):
                        answered = len(shown)
                        pressed = answer = answers.pop(0).encode()
                    elif answer and silent > AGAIN_SECONDS and shown[answered:].strip() in (b"", answer.strip()):
                        pressed = answer
                    if pressed:
                        os.write(terminal, pressed)
                        last = time.monotonic()
                    continue
                try:
                    part = os.read(terminal, 65536)
                except OSError:  # Linux says so once the terminal's last program has ended.
                    break
                shown += part
                last = time.monotonic()
            return _seen(shown, run.wait())
    finally:
        os.close(terminal)
