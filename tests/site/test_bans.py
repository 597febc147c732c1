"""Who guesses at tokens or passwords is shut out at the edge, which is a container; everybody else is not."""

from __future__ import annotations

import httpx2 as httpx
from testinfra.host import Host

from tests.support import poll

TIMED_OUT = 28  # curl's exit code


def test_an_address_that_guesses_is_banned_and_its_neighbour_is_not(
    vps: Host, outside: Host, http: httpx.Client, testbed: dict[str, str]
) -> None:
    me = f"curl --ipv4 --silent --insecure --output /dev/null https://{testbed['site']}/api/users/me"

    def shut_out() -> bool | None:
        return True if outside.run(f"{me} --max-time 2").rc == TIMED_OUT else None

    assert outside.run(f"{me}?[1-400] --max-time 5").rc in (0, TIMED_OUT)
    try:
        poll(shut_out, 30, "a ban after 400 requests without a valid token")
        assert http.get("/api/users/me").status_code == 401
        assert vps.check_output("fail2ban-client get berth-edge banip") == testbed["outside_address"]
    finally:
        vps.run("fail2ban-client unban %s", testbed["outside_address"])
    assert outside.run(f"{me} --max-time 5").rc == 0


def test_nothing_that_these_tests_do_as_ordinary_visitors_comes_near_a_ban(vps: Host, http: httpx.Client) -> None:
    for _ in range(40):
        assert http.get("/api/users/me").status_code == 401
    assert vps.check_output("fail2ban-client get berth-edge banip") == ""
    assert vps.check_output("fail2ban-client get sshd banip") == ""
