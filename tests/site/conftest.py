"""The provisioned site as its visitors, its operator and a stranger on the internet see it.

The scenario in molecule/default provisions it and names the test bed's folder in BERTH_TESTBED.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import testinfra
import yaml
from testinfra.host import Host

from tests.support import Mailbox, Visitor, administrator, join, ssh_config

ROOT = Path(__file__).resolve().parents[2]
STATE = Path(os.environ.get("BERTH_TESTBED", ROOT / ".testbed" / "site")).resolve()
ARTEFACTS = ROOT / "artifacts"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave those marked `long` to `make test-long`, which runs no others."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.site)
    long = bool(os.environ.get("BERTH_LONG"))
    left_out = [item for item in mine if (item.get_closest_marker("long") is not None) != long]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def testbed() -> dict[str, str]:
    return dict(yaml.safe_load((STATE / "connection.yml").read_text()))


@pytest.fixture(scope="session", autouse=True)
def names(testbed: dict[str, str]) -> Iterator[None]:
    """Resolve the test zone's names as the outside host does; this machine's resolver knows none of them."""
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == testbed["site"]:
            name = testbed["vps_address"]
        elif isinstance(name, str) and name.endswith("." + testbed["zone"]):
            name = testbed["outside_address"]
        return real(name, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield


@pytest.fixture(scope="session")
def way_in(testbed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings that `ssh -F … server` reaches the VPS with."""
    folder = tmp_path_factory.mktemp("ssh")
    return ssh_config(folder, testbed["ansible_host"], STATE / "id_ed25519", STATE / "known_hosts")


@pytest.fixture(scope="session")
def vps(way_in: Path) -> Host:
    return administrator(way_in)


@pytest.fixture(scope="session")
def outside(testbed: dict[str, str]) -> Host:
    return testinfra.get_host(f"docker://{testbed['outside_container']}")


@pytest.fixture(scope="session")
def authority(outside: Host, testbed: dict[str, str]) -> Path:
    """The root certificate of the ACME authority that the site's certificate must come from."""
    root = outside.check_output("curl -fsS --cacert /srv/outside/ca.pem https://acme.%s:15000/roots/0", testbed["zone"])
    path = STATE / "site-ca.pem"
    path.write_text(root + "\n")
    return path


@pytest.fixture(scope="session")
def client(testbed: dict[str, str], authority: Path) -> Callable[[], httpx.Client]:
    """Make a visitor's client: trusts the authority, keeps cookies, follows no redirect unasked."""
    context = ssl.create_default_context(cafile=str(authority))
    return lambda: httpx.Client(base_url=f"https://{testbed['site']}", verify=context, timeout=30)


@pytest.fixture
def http(client: Callable[[], httpx.Client], vps: Host) -> Iterator[httpx.Client]:
    """A visitor who is shown which release answers; others are not."""
    with client() as visitor:
        visitor.headers["X-Berth-Release-Key"] = vps.check_output("cat /opt/berth/releases/release-key")
        yield visitor


@pytest.fixture(scope="session")
def mailbox(testbed: dict[str, str]) -> Mailbox:
    return Mailbox(f"http://{testbed['outside_address']}:1080")


@pytest.fixture
def visitor(http: httpx.Client, mailbox: Mailbox) -> Visitor:
    """Somebody who has signed up and followed the link in the mail."""
    return join(http, mailbox)


@pytest.fixture
def certificate(testbed: dict[str, str], authority: Path) -> Callable[[], dict[str, Any]]:
    """Ask the edge for its certificate, checked against the authority."""

    def ask() -> dict[str, Any]:
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection((testbed["vps_address"], 443), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=testbed["site"]) as secure,
        ):
            found = secure.getpeercert()
        assert found
        return dict(found)

    return ask


@pytest.fixture
def away(outside: Host) -> Iterator[Callable[[bool], None]]:
    """Let the log servers and the collector outside go away, or come back."""

    def switch(gone: bool) -> None:
        outside.check_output("touch /srv/logs/away" if gone else "rm -f /srv/logs/away")

    yield switch
    switch(False)
