"""Console output for operators: changes, failures, and one sentence for each host at the end; with -v, everything.

A task of a role or playbook reports the outcome; the last one of each host is printed below the recap:

    - name: Report the outcome
      ansible.builtin.debug:
        msg: "Released 1.4.0 (green) in 46 s; to roll back to 1.3.9: ..."
      vars: {outcome: true}

With `outcome: alone` it counts only if its own playbook was started, not one that imports it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils import color

from ansible import constants, context

DOCUMENTATION = """
name: berth
type: stdout
short_description: What changed, what failed, and one sentence for each host at the end
description:
  - Without -v, tasks that succeed without a change print nothing; messages of debug are shown as text.
  - On a terminal the last line names the running task.
  - With -v it is Ansible's default.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
"""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DEBUG = ("ansible.builtin.debug", "ansible.legacy.debug", "debug")
PAUSE = ("ansible.builtin.pause", "ansible.legacy.pause", "pause")
# Only their message is printed.
SENTENCES = tuple(
    f"{prefix}{name}" for prefix in ("ansible.builtin.", "ansible.legacy.", "") for name in ("assert", "fail")
)


class RunningLine:
    """The last line of a terminal: it names the running task, and is cleared before other output."""

    def __init__(self, display: Any) -> None:
        self._shown = False
        self._lock = Lock()
        # Forks send their output to the main process.
        self._process = os.getpid()
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        if self._terminal:
            display.display = self._after_clearing(display.display)

    def _after_clearing(self, show: Callable[..., Any]) -> Callable[..., Any]:
        def after_clearing(*words: Any, **options: Any) -> Any:
            self.clear()
            return show(*words, **options)

        return after_clearing

    def show(self, text: str) -> None:
        if self._terminal:
            width = shutil.get_terminal_size((100, 25)).columns - 1
            self._write(color.stringc(f"... {text}"[:width], constants.COLOR_SKIP), True)

    def clear(self) -> None:
        if self._shown and os.getpid() == self._process:
            self._write("", False)

    def _write(self, text: str, shown: bool) -> None:
        with self._lock:
            sys.stdout.write(f"\r\x1b[K{text}")
            sys.stdout.flush()
            self._shown = shown


class CallbackModule(Default):  # type: ignore[misc]
    """Ansible's default callback, with less output and the outcome at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "berth"

    def __init__(self) -> None:
        super().__init__()
        self._running = RunningLine(self._display)
        self._playbook = Path()
        # Whether the play has more than one host.
        self._several = False
        # Host -> its outcome; host -> its last failure.
        self._outcomes: dict[str, str] = {}
        self._failures: dict[str, str] = {}

    @property
    def _quiet(self) -> bool:
        return bool(self._display.verbosity == 0)

    # --- start of plays and tasks ---

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = Path(playbook._file_name).resolve()
        super().v2_playbook_on_start(playbook)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not self._quiet:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        self._several = len(play.get_variable_manager()._inventory.get_hosts(play.hosts)) > 1
        self._display.display(f"PLAY [{play.get_name().strip()}]")

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        if not self._quiet:
            super()._task_start(task, prefix)
            return
        if prefix is not None:
            self._task_type_cache[task._uuid] = prefix
        self._last_task_name = task.get_name().strip()
        # A prompt prints its own text.
        if task.action not in PAUSE:
            self._running.show(self._last_task_name)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._quiet:
            super().v2_playbook_on_include(included_file)

    def v2_runner_retry(self, result: Any) -> None:
        if not self._quiet:
            super().v2_runner_retry(result)

    # --- results of tasks ---

    def v2_runner_on_ok(self, result: Any) -> None:
        said = self._message(result)
        outcome = said is not None and self._take_outcome(result, said)
        if not self._quiet:
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings_and_exception(result)
        if isinstance(result.task, TaskInclude):
            return
        if result.result.get("changed"):
            name = self._last_task_name or result.task.get_name().strip()
            self._display.display(f"changed: [{self.host_label(result)}] {name}", color=constants.COLOR_CHANGED)
        if said is not None and not outcome:
            self._show(result, said)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not self._quiet:
            super().v2_runner_item_on_ok(result)
            return
        self._handle_warnings_and_exception(result)
        if (said := self._message(result)) is not None:
            self._show(result, said)

    def _show(self, result: Any, said: str) -> None:
        """Print a task's message during the play."""
        self._display.display(f"{result.host.get_name()}: " * self._several + self._as_seen(said))

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._quiet:
            self._handle_warnings_and_exception(result)
        else:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._quiet:
            self._handle_warnings_and_exception(result)
        else:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        said = self._refusal(result)
        name = self._last_task_name or result.task.get_name().strip()
        first = (said or f"{name}: {result.result.get('msg') or ''}").strip().partition("\n")[0]
        self._failures[result.host.get_name()] = first
        if not self._quiet or ignore_errors or result.task.loop or not said:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._print_task_banner(result.task)
        self._handle_warnings(result.result)
        told = textwrap.indent(self._as_seen(said), "    ")
        self._display.display(f"fatal: [{self.host_label(result)}]: FAILED! =>\n{told}", color=constants.COLOR_ERROR)

    @staticmethod
    def _refusal(result: Any) -> str:
        """Return the message of an assert, a fail or `berth`; empty for other failures."""
        if result.task.action in SENTENCES:
            said = result.result.get("msg")
            return "\n".join(map(str, said)) if isinstance(said, list) else str(said or "")
        # `berth` prints one JSON object.
        try:
            answer = json.loads(result.result.get("stdout") or "")
        except (TypeError, ValueError):
            return ""
        if not isinstance(answer, dict) or not answer.get("reason"):
            return ""
        return "\n".join([str(answer["reason"]), *map(str, answer.get("lines") or [])])

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if self._quiet and result.task.ignore_unreachable:
            # A first run tries an account that does not exist yet; the play continues, or fails with its own message.
            why = " ".join(str(result.result.get("msg") or "").split())
            name = self._last_task_name or result.task.get_name().strip()
            self._display.display(f"ignored: [{self.host_label(result)}] {name}: {why}", color=constants.COLOR_SKIP)
            return
        self._failures[result.host.get_name()] = "unreachable: see the message above."
        super().v2_runner_on_unreachable(result)

    # --- the end ---

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._running.clear()
        super().v2_playbook_on_stats(stats)
        for host in sorted(stats.processed):
            counted = stats.summarize(host)
            if counted["failures"] or counted["unreachable"]:
                self._say_outcome(host, f"FAILED: {self._failures.get(host, '')}", constants.COLOR_ERROR)
            elif host in self._outcomes:
                self._say_outcome(host, self._outcomes[host], constants.COLOR_OK)
            elif context.CLIARGS.get("check") and host != "localhost":
                tasks = f"{counted['changed']} task{'' if counted['changed'] == 1 else 's'} would change something"
                self._say_outcome(host, f"Check mode: nothing was changed; {tasks}.", constants.COLOR_OK)

    def _say_outcome(self, host: str, text: str, colour: str) -> None:
        seen = self._as_seen(text)
        if "\n" not in seen:
            self._display.display(f"{host}: {seen}", color=colour)
            return
        # Several lines have their own colours.
        self._display.display(f"{host}:\n{seen}" if len(self._outcomes) > 1 else seen)

    def _message(self, result: Any) -> str | None:
        """Return the message of a debug task; None for other tasks and for loops."""
        if result.task.action not in DEBUG or "results" in result.result or "censored" in result.result:
            return None
        said = result.result.get("msg")
        if isinstance(said, str):
            return str(said)
        if isinstance(said, list) and all(isinstance(one, str) for one in said):
            return "\n".join(said)
        shown = dict(result.result)
        self._clean_results(shown, result.task.action)
        return textwrap.dedent(self._dump_results(shown)).strip("\n")

    def _take_outcome(self, result: Any, said: str) -> bool:
        """Store the outcome that a task reports; return whether it is one."""
        kind = result.task.vars.get("outcome")
        if not kind:
            return False
        place = Path(str(result.task.get_path() or "").rpartition(":")[0]).resolve()
        if kind != "alone" or place == self._playbook:
            self._outcomes[result.host.get_name()] = said.strip("\n")
        return True

    @staticmethod
    def _as_seen(text: str) -> str:
        """Return a text without colour codes, unless colours are on."""
        return text if color.ANSIBLE_COLOR else COLOURS.sub("", text)
