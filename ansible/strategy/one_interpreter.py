"""Run tasks in one Python interpreter that keeps running on the host (Mitogen).

Ansible alone starts a new one for each task; this halves the time of a run (docs/decisions/0006). Without Mitogen,
this is Ansible's linear strategy.
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
        """Return the interpreter's command line; keep this controller's own as one word, even with a space in its path.

        Mitogen splits every interpreter like a shell, and "/home/ada/my sites/.venv/bin/python" into two words.
        """
        words = list(as_words(interpreter, **surroundings))
        return [interpreter] if interpreter == sys.executable else words

    ansible_mitogen.transport_config.parse_python_path = as_one_path


class StrategyModule(*Bases):  # type: ignore[misc]
    """Ansible's linear strategy, on Mitogen if it is installed."""
