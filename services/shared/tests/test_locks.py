"""An image holds what its lock lists and no more; here, everything is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2]
# Loads a program as its image would: packages that its lock does not list cannot be imported.
PROGRAM = """
import re, sys
from importlib import import_module, metadata

def plain(name):
    return re.sub("[-_.]+", "-", name).lower()

service, lock = sys.argv[1:]
locked = set(re.findall("^([a-z0-9-]+)==", open(lock).read(), re.MULTILINE))
homes = metadata.packages_distributions()

class Locked:
    def find_spec(self, name, path=None, target=None):
        found = homes.get(name) if path is None else None
        if found and not locked & set(map(plain, found)):
            raise ModuleNotFoundError(f"{name} is not in {lock}")

sys.meta_path.insert(0, Locked())
import_module(f"{service}.main")
import_module(f"{service}.settings")
"""


@pytest.mark.parametrize("service", [lock.parent.name for lock in sorted(SERVICES.glob("*/requirements.txt"))])
def test_a_program_imports_only_what_its_image_holds(service: str) -> None:
    lock = SERVICES / service / "requirements.txt"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, service, str(lock)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
