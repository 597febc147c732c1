"""What the documents tell an operator to type works on the site; what they tell for a disaster ends it.

tests/documents.py reads the commands, tests/documents.txt says which are run elsewhere or not at all.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.documents import ASSIGNMENT, Command, commands, is_run_on_the_healthy_site, listed
from tests.support import PLAIN, ROOT, Visitor, poll

# What the commands look for is there to be found: else a search that can find nothing would pass, too.
LINES = [
    ("berth-blue-auth_service-1", '{"level": "ERROR", "message": "written by a test of the documents"}'),
    ("berth-blue-auth_service-1", '{"level": "ERROR", "message": "work after an answer failed"}'),
    ("berth-blue-celery_worker-1", "Task mail.test raised unexpected: written by a test of the documents"),
    ("berth-blue-celery_worker-1", "Retry in 3s: written by a test of the documents"),
    ("berth-monitoring-alertmanager-1", "level=warn: written by a test of the documents"),
    ("berth-monitoring-prometheus-1", "level=warn: written by a test of the documents"),
    ("berth-traefik_a-1", "acme: written by a test of the documents"),
    ("berth-traefik_a-1", '{"DownstreamStatus":429,"RequestPath":"/api/auth/login"}'),
]
# They say nothing, or nothing while all is well; a unit that has not run yet has no lines.
SILENT = re.compile(
    r"(sudo )?systemctl (start|stop|restart|reload|reset-failed)|sudo apt-get (clean|--simulate)|cd |"
    r"sudo berth secrets|sudo journalctl -u|(sudo )?curl .*/rules|\w+=|umount|mount|echo .*>>"
)
MARK = "== exit status "
SLOW = "slow"
SETTLED_SECONDS = 180


@dataclass(frozen=True)
class Said:
    command: str
    status: int
    text: str

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.text[-3000:]}exit status {self.status}"


@dataclass
class Places:
    """Where commands are typed: the test bed's server, and this controller."""

    way_in: Path
    testbed: dict[str, str]

    def here(self, text: str) -> str:
        """Return the command with this test bed's names in place of the documents'."""
        site = self.testbed["site"]
        text = text.replace("inventories/production", "inventories/demo").replace(
            "you@your-company.net", f"doctor@{site}"
        )
        return text.replace("www.your-company.net", site)

    def host(self, texts: list[str]) -> list[Said]:
        """Type them on the server, one after the other in one session, as an administrator does."""
        typed = "".join(
            f"{{ {text}\n}} 2>&1 < /dev/null; printf '\\n{MARK}%s\\n' $?\n" for text in map(self.here, texts)
        )
        ssh = ["ssh", "-F", str(self.way_in), "server", "CURL_CA_BUNDLE=site-ca.pem bash -s"]
        done = subprocess.run(ssh, input=typed, capture_output=True, text=True, timeout=SETTLED_SECONDS, check=False)
        ends = re.split(rf"\n{MARK}(\d+)\n", done.stdout)
        assert len(ends) == 2 * len(texts) + 1, done.stdout + done.stderr
        return [Said(text, int(ends[2 * n + 1]), ends[2 * n]) for n, text in enumerate(texts)]

    def controller(self, text: str) -> Said:
        """Type it here; what a test bed sets differently on its command line stays so."""
        here = self.here(text)
        if "site.yml" in here:
            here += f" -e {shlex.quote(json.dumps({'monitoring_scrape_interval': 2, 'monitoring_for_factor': 0.05}))}"
        path = f"{Path(sys.executable).parent}:{PLAIN['PATH']}"
        done = subprocess.run(
            ["bash", "-c", here],
            cwd=ROOT,
            env={**PLAIN, "PATH": path},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Said(text, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def places(way_in: Path, testbed: dict[str, str], authority: Path, vps: Host) -> Places:
    """Both places; the server knows the test bed's authority, and its journal has what the commands look for."""
    put = ["ssh", "-F", str(way_in), "server", "cat > site-ca.pem"]
    bundle = authority.read_text()
    subprocess.run(put, input=bundle, text=True, check=True, timeout=60)
    for container, message in LINES:
        line = f"MESSAGE={message}\nCONTAINER_NAME={container}\n"
        vps.check_output("printf %%s %s | logger --journald", line)
    return Places(way_in, testbed)


def of(page: str) -> list[Command]:
    return [command for command in commands() if command.page == page]


def pages(chosen: Callable[[Command], bool]) -> list[object]:
    """Return the pages with a command like this, as parameters."""
    found = dict.fromkeys(
        command.page for command in commands() if chosen(command) and not ASSIGNMENT.match(command.text)
    )
    return [pytest.param(page, id=Path(page).stem) for page in found]


def assert_done(said: Said) -> None:
    assert said.status == 0, str(said)
    if SILENT.match(said.command):
        return
    assert said.text.strip(), str(said)
    assert "-- No entries --" not in said.text, str(said)
    if said.command.startswith("sudo docker ps "):
        assert len(said.text.strip().splitlines()) > 1, str(said)


@pytest.mark.parametrize("page", pages(is_run_on_the_healthy_site))
def test_what_a_page_tells_to_type_on_the_host_can_be_typed(page: str, places: Places) -> None:
    for said in places.host([command.text for command in of(page) if is_run_on_the_healthy_site(command)]):
        assert_done(said)


def named_images(vps: Host) -> set[str]:
    listed: str = vps.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}'")
    return {name for name in listed.split() if name != "<none>:<none>"}


def test_making_room_keeps_the_images_of_earlier_releases(places: Places, vps: Host) -> None:
    earlier = "localhost/berth/frontend:of-an-earlier-release"
    vps.check_output(f"tar --create --files-from=/dev/null | docker import - {earlier}")
    try:
        before = named_images(vps)
        for page in ("docs/runbooks/DiskFull.md", "docs/disasters/disk-full.md"):
            places.host([command.text for command in of(page) if "prune" in command.text])
        assert named_images(vps) == before
    finally:
        vps.run(f"docker image rm {earlier}")


# --- What takes its time: make test-site-long ---


def settled(vps: Host) -> None:
    """Wait until everything that runs is healthy."""

    def look() -> bool | None:
        states = vps.check_output("docker ps --format '{{.Names}} {{.Status}}'").splitlines()
        live = [state for state in states if not re.search(r"\(healthy\)$", state)]
        return True if states and not live else None

    poll(look, SETTLED_SECONDS, "every container to be healthy")


def slow(where: str) -> list[object]:
    """Return each once, as a parameter: what is set before it on its page, and the command."""
    chosen = {one.text: one for one in reversed(commands()) if one.where == where and one.text in listed()[SLOW]}
    return [pytest.param(one, id=f"{Path(one.page).stem}-{one.line}") for one in reversed(chosen.values())]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", slow("host"))
def test_what_takes_its_time_on_the_host_can_be_typed(command: Command, places: Places, vps: Host) -> None:
    set_before = [one.text for one in of(command.page) if one.where == "host" and ASSIGNMENT.match(one.text)]
    assert_done(places.host([*set_before, command.text])[-1])
    settled(vps)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", slow("controller"))
def test_what_is_typed_on_the_controller_can_be_typed(command: Command, places: Places) -> None:
    try:
        said = places.controller(command.text)
    finally:
        (ROOT / "doctor.json").unlink(missing_ok=True)
    assert_done(said)


# --- Disasters ---


def walk(places: Places, page: str, harm: dict[str, Callable[[], object]], shown_by: tuple[str, ...] = ()) -> None:
    """Type all of a page in its order, with harm done before some commands; those that show it fail the first time."""
    left, showing = dict(harm), list(shown_by)
    folder = ""
    for text in [command.text for command in of(page)]:
        if text in left:
            left.pop(text)()
        if text.startswith("cd "):
            folder = f"{text} && "
        on_the_host = any(command.where == "host" for command in of(page) if command.text == text)
        said = places.host([folder + text])[0] if on_the_host else places.controller(text)
        if text in showing:
            showing.remove(text)
            assert said.status != 0, f"{said}, although harm was done"
        else:
            assert said.status == 0, str(said)
    assert not left, f"{page} has no such commands any more: {list(left)}"


def signs_in(visitor: Visitor) -> None:
    def look() -> bool | None:
        account = {"email": visitor.email, "password": visitor.password}
        return True if visitor.http.post("/api/auth/login", json=account).status_code == 200 else None

    poll(look, SETTLED_SECONDS, "a visitor to sign in again")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_databases_without_containers_are_back_with_their_data(places: Places, vps: Host, visitor: Visitor) -> None:
    def remove() -> None:
        vps.check_output("docker rm --force berth-mongo-1 berth-redis-1")

    page = "docs/disasters/database-container-gone.md"
    first, again = of(page)[0].text, "cd /opt/berth"
    walk(places, page, {first: remove, again: remove})
    signs_in(visitor)
    settled(vps)


@pytest.fixture
def environment_file(vps: Host) -> Iterator[str]:
    """The file's path; what was in it is there again afterwards."""
    file, kept = "/opt/berth/.env", "/run/kept.env"
    vps.check_output(f"cp --preserve {file} {kept}")
    yield file
    vps.check_output(f"test -e {file} || cp --preserve {kept} {file}; rm {kept}")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_environment_file_that_is_gone_is_written_as_it_was(
    places: Places, vps: Host, environment_file: str
) -> None:
    before = vps.check_output(f"sha256sum {environment_file}")
    look = f"sudo ls -l {environment_file}"
    walk(places, "docs/disasters/env-gone.md", {look: lambda: vps.check_output(f"rm {environment_file}")}, (look,))
    assert vps.check_output(f"sha256sum {environment_file}") == before


@pytest.fixture
def daemon_json(vps: Host) -> Iterator[Callable[[], None]]:
    """Break the engine's configuration, and let the engine end on it."""
    file = "/etc/docker/daemon.json"
    vps.check_output(f"cp --preserve {file} /run/daemon.json")

    def harm() -> None:
        vps.check_output(f"sed -i '1s/{{/{{ \"no-such-setting\": true,/' {file}")
        assert vps.run("systemctl restart docker").rc != 0
        # systemd tries it some times before it gives up.
        given_up = "systemctl is-failed --quiet docker"
        poll(lambda: True if vps.run(given_up).rc == 0 else None, 60, "systemd to give up on the engine")

    yield harm
    if vps.run("docker info").rc:
        vps.check_output(
            f"cp --preserve /run/daemon.json {file} && systemctl reset-failed docker && systemctl start docker"
        )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_broken_configuration_of_the_engine_stops_no_container(
    places: Places, vps: Host, daemon_json: Callable[[], None]
) -> None:
    started = "docker ps --quiet --no-trunc | sort | xargs docker inspect --format '{{.Id}} {{.State.StartedAt}}'"
    before = vps.check_output(started)
    page = "docs/disasters/daemon-json-broken.md"
    validate = "sudo dockerd --validate --config-file=/etc/docker/daemon.json"
    start = "sudo systemctl start docker"

    def harm_and_correct_by_hand() -> None:
        daemon_json()
        vps.check_output("cp --preserve /run/daemon.json /etc/docker/daemon.json && systemctl reset-failed docker")

    look = "systemctl status docker"
    walk(places, page, {look: daemon_json, start: harm_and_correct_by_hand}, (look, validate))
    assert vps.check_output(started) == before


EXPIRED = """
import base64, glob, json, subprocess, sys
edge, site = sys.argv[1:]
(path,) = glob.glob(f"/opt/berth/traefik/acme/{edge}/*.json")
made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /run/key.pem -out /run/expired.pem"
dates = "-not_before 20250101000000Z -not_after 20250401000000Z"
names = f"-subj /CN={site} -addext subjectAltName=DNS:{site} -addext basicConstraints=critical,CA:FALSE"
subprocess.run(f"{made} {dates} {names}", shell=True, check=True)
with open(path, "r+") as file:
    stored = json.load(file)
    for resolver in stored.values():
        for one in resolver["Certificates"] or []:
            one["certificate"] = base64.b64encode(open("/run/expired.pem", "rb").read()).decode()
            one["key"] = base64.b64encode(open("/run/key.pem", "rb").read()).decode()
    file.seek(0)
    file.truncate()
    json.dump(stored, file)
"""


@pytest.fixture
def expired(vps: Host, testbed: dict[str, str]) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Let the edge show a certificate that has expired, with no authority to ask; and give it the authority back."""
    away = "table inet documents-away"

    def harm() -> None:
        vps.check_output(f"nft add {away}")
        vps.check_output("nft add chain inet documents-away forward '{ type filter hook forward priority -400; }'")
        vps.check_output("nft add rule inet documents-away forward tcp dport 14000 reject")
        edge = vps.check_output("sed -n 's/^# serving: //p' /opt/berth/traefik/edge.nft")
        vps.check_output("python3 -c %s %s %s", EXPIRED, edge, testbed["site"])
        vps.check_output(f"docker restart berth-traefik_{edge}-1")

        def shown() -> bool | None:
            ask = f"openssl s_client -connect {testbed['vps_address']}:443 -servername {testbed['site']}"
            dated = vps.run(f"echo | {ask} 2>/dev/null | openssl x509 -noout -enddate").stdout
            return True if "Apr  1 00:00:00 2025" in dated else None

        poll(shown, 60, "the edge to show the certificate that has expired")

    def remove_the_cause() -> None:
        vps.run(f"nft delete {away}")

    yield harm, remove_the_cause
    remove_the_cause()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_certificate_that_has_expired_is_replaced(
    places: Places, expired: tuple[Callable[[], None], Callable[[], None]], certificate: Callable[[], dict[str, object]]
) -> None:
    page = "docs/disasters/certificate-expired.md"
    doctor = "ansible-playbook ansible/doctor.yml -i inventories/production"
    harm, remove_the_cause = expired
    restart = next(command.text for command in of(page) if "docker restart" in command.text)
    walk(places, page, {of(page)[0].text: harm, restart: remove_the_cause}, (doctor,))
    # Asked as a browser does, which refuses one that has expired.
    assert certificate()["notAfter"]


@pytest.fixture
def as_the_rescue_system(testbed: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """Type as root beside the server's own logins, with its disk where the page mounts it."""
    key = Path(testbed["ansible_ssh_private_key_file"] + ".pub").read_text().strip()
    changes = {"/dev/vda1 /mnt": "--bind / /mnt", "ssh-ed25519 AAAA... ada@laptop": key, "/home/ada/": "/home/admin/"}

    def run(text: str) -> None:
        for documented, ours in changes.items():
            text = text.replace(documented, ours)
        subprocess.run(["docker", "exec", testbed["vps_container"], "sh", "-c", text], check=True)

    yield run
    file = "/home/admin/.ssh/authorized_keys"
    run(f"grep -q . {file} || echo {shlex.quote(key)} >> {file}")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_administrator_who_is_locked_out_gets_in_again(
    places: Places, vps: Host, as_the_rescue_system: Callable[[str], None]
) -> None:
    vps.check_output("cp /dev/null /home/admin/.ssh/authorized_keys")
    ssh = ["ssh", "-F", str(places.way_in)]
    subprocess.run([*ssh, "-O", "exit", "server"], check=True, capture_output=True)
    refused = subprocess.run([*ssh, "server", "true"], capture_output=True, text=True, check=False)
    assert "Permission denied" in refused.stderr

    rescue = [command.text for command in of("docs/disasters/locked-out-of-ssh.md") if command.where == "rescue"]
    for text in rescue:
        if text != "lsblk":
            as_the_rescue_system(text)
    assert places.host(["sudo id --user"])[0].text.strip() == "0"
