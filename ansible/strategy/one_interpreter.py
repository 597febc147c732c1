"""Run tasks through one Python interpreter that stays on the host (Mitogen): ANSIBLE_STRATEGY=one_interpreter.

Ansible on its own starts and compiles one for each task (docs/decisions/0006-one-interpreter.md).
"""

from __future__ import annotations

import sys
from typing import Any

from ansible.errors import AnsibleError

try:
    import ansible_mitogen.loaders
    import ansible_mitogen.transport_config
    from ansible_mitogen.strategy import StrategyMixin
except ImportError as error:
    raise AnsibleError(
        "The strategy one_interpreter needs Mitogen: "
        f"{sys.executable} -m pip install --require-hashes -r requirements/mitogen.txt"
    ) from error

as_words = ansible_mitogen.transport_config.parse_python_path


def as_one_path(interpreter: str, **surroundings: Any) -> list[str]:
    """Return the interpreter's command line; this controller's own is one word, though a folder's name has a space.

    Mitogen reads every interpreter as words of a shell, and "/home/ada/my sites/.venv/bin/python" as two.
    """
    words = list(as_words(interpreter, **surroundings))
    return [interpreter] if interpreter == sys.executable else words


ansible_mitogen.transport_config.parse_python_path = as_one_path
Linear: type = ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True)


class StrategyModule(StrategyMixin, Linear):  # type: ignore[misc]  # neither is typed
    """Ansible's linear strategy on Mitogen."""
