"""Print what helps below a failure of ssh or sudo, whatever playbook meets it."""

from __future__ import annotations

from typing import Any

from ansible.constants import COLOR_HIGHLIGHT
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar

from ansible.plugins.callback import CallbackBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: first_contact
type: notification
short_description: What helps against a failure of ssh or sudo
description:
  - Says below a host that cannot be reached, or an account that does not become root, what was said and what helps.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """What helps, once for each host."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "first_contact"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember whose variables count."""
        self._play = play

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A login failed; where a play goes on without it, it says itself what that means."""
        if not result.task.ignore_unreachable:
            self._help(result, login=True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Perhaps it was sudo, the account's shell, or there is no Python."""
        if not ignore_errors:
            self._help(result, login=False)

    @staticmethod
    def _message(result: Any) -> str:
        return " ".join(str(result.result.get(name) or "") for name in ("msg", "module_stderr", "module_stdout"))

    def _help(self, result: Any, login: bool) -> None:
        manager = self._play.get_variable_manager()
        variables = manager.get_vars(play=self._play, host=result.host, task=result.task)
        templar = Templar(loader=self._play.get_loader(), variables=variables)
        lookup = lookup_loader.get("first_contact", loader=self._play.get_loader(), templar=templar)
        for text in filter(None, lookup.run([self._message(result)], variables, login=login)):
            self._display.display(f"\n{result.host.get_name()}: {text}\n", color=COLOR_HIGHLIGHT)
