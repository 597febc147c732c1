"""Print a remedy below a failure of ssh or sudo, in every playbook."""

from __future__ import annotations

from typing import Any

from ansible.constants import COLOR_HIGHLIGHT
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar

from ansible.plugins.callback import CallbackBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: first_contact
type: notification
short_description: Remedies for failures of ssh and sudo
description:
  - If a host cannot be reached, or an account does not become root, prints the cause and the remedy.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Prints remedies, once for each host."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "first_contact"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Store the play, for its variables."""
        self._play = play

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A login failed. A play that continues without it has its own message."""
        if not result.task.ignore_unreachable:
            self._help(result, login=True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Perhaps sudo or the account's shell failed, or there is no Python."""
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
