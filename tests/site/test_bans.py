"""Who guesses at passwords is shut out at the edge, which is a container; everybody else is not."""

from __future__ import annotations

import httpx2 as httpx
import yaml
from testinfra.host import Host

from tests.support import ROOT, poll

TIMED_OUT = 28  # curl's exit code
DEFAULTS = yaml.safe_load((ROOT / "roles/hardening/defaults/main.yml").read_text())
ENOUGH = DEFAULTS["hardening_fail2ban_edge_sign_in_retries"] + 20


def guesses(testbed: dict[str, str], *headers: str) -> str:
    """Return a command that sends as many wrong passwords as lead to a ban, and a few more."""
    said = " ".join(f"--header '{header}'" for header in ("Content-Type: application/json", *headers))
    body = """--data '{"email": "nobody@example.com", "password": "wrong-wrong-wrong"}'"""
    url = f"https://{testbed['site']}/api/auth/login?[1-{ENOUGH}]"
    return f"curl --ipv4 --silent --insecure --output /dev/null --max-time 10 {said} {body} '{url}'"


def test_an_address_that_guesses_is_banned_and_its_neighbour_is_not(
    vps: Host, outside: Host, http: httpx.Client, testbed: dict[str, str]
) -> None:
    visit = f"curl --ipv4 --silent --insecure --output /dev/null https://{testbed['site']}/"

    def banned() -> bool | None:
        return True if vps.check_output("fail2ban-client get berth-edge banip") == testbed["outside_address"] else None

    def verdicts() -> list[str]:
        said = vps.check_output("journalctl --quiet --output cat _SYSTEMD_UNIT=berth-edge-ban.service")
        return [line for line in str(said).splitlines() if line.startswith(f"{testbed['outside_address']} sent")]

    before = len(verdicts())
    # A foreign page makes its visitor's browser do the same: he stays.
    assert outside.run(guesses(testbed, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example")).rc == 0
    assert outside.run(guesses(testbed)).rc in (0, TIMED_OUT)
    try:
        poll(banned, 60, f"a ban after {ENOUGH} wrong passwords")
        assert outside.run(f"{visit} --max-time 5").rc == TIMED_OUT
        assert http.get("/api/users/me").status_code == 401
    finally:
        vps.run("fail2ban-client unban %s", testbed["outside_address"])
    assert outside.run(f"{visit} --max-time 30").rc == 0
    # Once: what the foreign page caused did not count.
    assert len(verdicts()) == before + 1


def test_nothing_that_these_tests_do_as_ordinary_visitors_comes_near_a_ban(vps: Host, http: httpx.Client) -> None:
    for _ in range(40):
        assert http.get("/api/users/me").status_code == 401
    assert vps.check_output("fail2ban-client get berth-edge banip") == ""
    assert vps.check_output("fail2ban-client get sshd banip") == ""
