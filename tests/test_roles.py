"""Every role says what may be set, with a value in defaults/ and a meaning in its argument specs."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("role", sorted((ROOT / "roles").iterdir()), ids=lambda role: role.name)
def test_defaults_and_argument_specs_name_the_same_variables(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    optional = {name for name, option in options.items() if not option.get("required")}
    assert set(defaults) == optional
    assert all(name.startswith(f"{role.name}_") for name in options)


def test_logrotate_is_given_a_file_of_root() -> None:
    """With Ansible's own strategy the modules template and copy validate a file of the account that logged in."""
    tasks = yaml.safe_load((ROOT / "roles/base/tasks/security_log.yml").read_text())
    checked = [task for task in tasks if "logrotate --debug" in str(task)]
    assert [list(task) for task in checked] == [["name", "berth_files"]]
