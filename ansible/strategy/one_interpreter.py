"""Run tasks through one Python interpreter that stays on the host (Mitogen).

Ansible on its own starts and compiles one for each task; so a run takes half the time (docs/decisions/0006). Where
Mitogen is not installed, this is Ansible's own linear strategy.
"""

from __future__ import annotations

from ansible.plugins.loader import strategy_loader

try:
    import ansible_mitogen.loaders
    from ansible_mitogen.strategy import StrategyMixin
except ImportError:
    Bases: tuple[type, ...] = (strategy_loader.get("linear", class_only=True),)
else:
    Bases = (StrategyMixin, ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True))


class StrategyModule(*Bases):  # type: ignore[misc]
    """Ansible's linear strategy, on Mitogen where it can be had."""
