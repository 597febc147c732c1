"""The playbook once more, on the machine that has restarted since."""

from __future__ import annotations

import re
import subprocess
import time
from itertools import pairwise

from tests.support import ROOT
from tests.vm.machine import PROVISION


def test_a_second_run_of_the_playbook_changes_nothing() -> None:
    began = time.monotonic()
    done = subprocess.run(
        PROVISION,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    print(f"second run: {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stdout[-4000:]
    told = re.findall(r"^(?:TASK|RUNNING HANDLER) \[(.*)\] \**$|^(changed): ", done.stdout, re.MULTILINE)
    changed = [before for (before, _), (_, verdict) in pairwise(told) if verdict]
    assert changed == []
    assert re.search(r"^vm\s.*changed=0\s", done.stdout, re.MULTILINE), done.stdout[-2000:]
