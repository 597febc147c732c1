"""Formats the output of `journalctl --output=json` for people, as `berth logs` does on the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Behind everything else: the project has a folder named ansible.
sys.path.append(str(Path(__file__).resolve().parents[3]))

from berth.logs.lines import journal_lines  # found there


class FilterModule:
    """Loaded by Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"journal_lines": journal_lines}
