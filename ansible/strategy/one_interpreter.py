"""Run tasks through one Python interpreter that stays on the host (Mitogen).

Ansible on its own starts and compiles one for each task; so a run takes half the time (docs/decisions/0006). Where
Mitogen is not installed, this is Ansible's own linear strategy.
"""

from __future__ import annotations

import sys
from typing import Any

from ansible.plugins.loader import strategy_loader

try:
    import ansible_mitogen.loaders
    import ansible_mitogen.transport_config
    from ansible_mitogen.strategy import StrategyMixin
except ImportError:
    Bases: tuple[type, ...] = (strategy_loader.get("linear", class_only=True),)
else:
    Bases = (StrategyMixin, ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True))
    as_words = ansible_mitogen.transport_config.parse_python_path

    def as_one_path(interpreter: str, **surroundings: Any) -> list[str]:
        """Return the interpreter's command line; this controller's own is one word, though a folder's name has a space.

        Mitogen reads every interpreter as words of a shell, and "/home/ada/my sites/.venv/bin/python" as two.
        """
        words = list(as_words(interpreter, **surroundings))
        return [interpreter] if interpreter == sys.executable else words

    ansible_mitogen.transport_config.parse_python_path = as_one_path


class StrategyModule(*Bases):  # type: ignore[misc]
    """Ansible's linear strategy, on Mitogen where it can be had."""
