"""What the host runs as units of its own."""

from __future__ import annotations

import re

from testinfra.host import Host

# Of 10, as systemd-analyze counts.
EXPOSED_AT_MOST = 4.0


def test_every_unit_that_was_added_exposes_little(vps: Host) -> None:
    # What comes with a package and is enabled is a link there.
    names = vps.check_output("find /etc/systemd/system -maxdepth 1 -type f -name '*.service' -printf '%f '")
    said = vps.check_output(f"systemd-analyze security --no-pager {names}")
    exposed = {unit: float(level) for unit, level in re.findall(r"exposure level for (\S+): (\S+)", said)}
    assert len(exposed) == len(names.split())
    assert {unit: level for unit, level in exposed.items() if level > EXPOSED_AT_MOST} == {}


def test_what_releases_and_backups_write_is_no_intrusion(vps: Host) -> None:
    """The baseline is older than the first release."""
    vps.run("systemctl start berth-aide-check")
    said = vps.check_output("journalctl --sync; journalctl --unit=berth-aide-check --output=cat --since=-2min")
    assert "AIDE found NO differences" in said, said
