"""Redis with the rights of production, a database, a mail server, and the services as real processes."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from pymongo import MongoClient

from shared import keys
from shared.tests.collector import Collector, collecting

HERE = Path(__file__).parent
PRIVATE_KEY = keys.new_private_key()
PUBLIC_KEY = keys.public_key(PRIVATE_KEY)
# What production hands to a service as files (berth/secrets.py).
TOKEN_SECRETS = {
    "auth_service": {
        "JWT_PRIVATE_KEY": PRIVATE_KEY,
        "JWT_PUBLIC_KEYS": PUBLIC_KEY,
        "JWT_SECRET_KEY": secrets.token_hex(32),
    },
    "user_service": {"JWT_PUBLIC_KEYS": PUBLIC_KEY},
}


def poll(ask: Callable[[], Any], seconds: float, what: str, instead: Callable[[], object] | None = None) -> Any:
    """Ask until there is an answer; fail with `what` after so many seconds, and with what there was instead."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s{f', but {instead()}' if instead else ''}")
        time.sleep(0.1)
    return answer


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class Container:
    id: str
    port: int

    def accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


@contextlib.contextmanager
def running(image: str, port: int, *options: str, command: tuple[str, ...] = ()) -> Iterator[Container]:
    # A fixed port, since Docker would choose another one when the container is started again.
    with socket.create_server(("127.0.0.1", 0)) as free:
        chosen = free.getsockname()[1]
    identity = docker("run", "--detach", f"--publish=127.0.0.1:{chosen}:{port}", *options, image, *command)
    try:
        container = Container(identity, chosen)
        poll(container.accepts, 60, image)
        yield container
    finally:
        docker("rm", "--force", "--volumes", identity)


@pytest.fixture(scope="session")
def redis() -> Iterator[Container]:
    image = os.environ.get("REDIS_IMAGE", "localhost/berth/redis:8")
    acl = f"--volume={HERE}/users.acl:/users.acl:ro"
    with running(image, 6379, acl, command=("redis-server", "--aclfile", "/users.acl", "--appendonly", "yes")) as up:
        yield up


@pytest.fixture(scope="session")
def mongo() -> Iterator[Container]:
    image = os.environ.get("MONGO_IMAGE", "localhost/berth/mongo-standin:8")
    with running(image, 27017, command=("mongod", "--replSet", "rs0", "--bind_ip_all")) as up:
        initiate(up)
        yield up


def initiate(mongo: Container) -> None:
    """Make the server the primary of a set of one, as mongo-init.js does; the stand-in is one from the start."""
    client: MongoClient[dict[str, Any]]
    with MongoClient("127.0.0.1", mongo.port, directConnection=True) as client:
        admin: Any = client.admin
        if "setName" not in admin.command("hello"):
            members = [{"_id": 0, "host": "127.0.0.1:27017"}]
            admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        poll(lambda: admin.command("hello")["isWritablePrimary"], 60, "the database's primary")


@dataclass
class Mailbox:
    smtp: Container
    web: str

    def to(self, address: str) -> list[dict[str, Any]]:
        mails = httpx.get(f"{self.web}/api/email").raise_for_status().json()
        return [mail for mail in mails if any(to["address"] == address for to in mail["to"])]

    def link_to(self, address: str, subject: str = "Verify") -> str:
        """The token of the newest link in a mail about this."""
        about = f"a mail to {address}: {subject}"
        mails = poll(lambda: [mail for mail in self.to(address) if subject in mail["subject"]], 60, about)
        # Sorted stably: the list is in the order of arrival, and times are whole seconds.
        newest = sorted(mails, key=lambda mail: str(mail["time"]))[-1]
        whole = httpx.get(f"{self.web}/api/email/{newest['id']}").raise_for_status().json()
        return str(whole["text"]).partition("token=")[2].split()[0]


@pytest.fixture(scope="session")
def mailbox() -> Iterator[Mailbox]:
    image = os.environ.get("MAILDEV_IMAGE", "localhost/berth/maildev:3")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(image, 1025, f"--publish=127.0.0.1:{port}:1080") as smtp:
        box = Mailbox(smtp, f"http://127.0.0.1:{port}")

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{box.web}/api/email").status_code == 200
            return False

        poll(answers, 30, "the mailbox")
        yield box


@dataclass
class Program:
    """One of our programs, as a process of this machine."""

    log: Path
    arguments: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parent), **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(45)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server


@dataclass
class Site:
    auth: str
    user: str
    # Where the worker answers Prometheus.
    figures: str
    worker: Program
    programs: dict[str, Program]

    def api(self) -> httpx.Client:
        """A browser's worth of cookies."""
        return httpx.Client(timeout=30)


@pytest.fixture(scope="session")
def site(
    redis: Container,
    mongo: Container,
    mailbox: Mailbox,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    logs = tmp_path_factory.mktemp("logs")
    passwords = {"auth_service": "auth-test", "user_service": "user-test", "celery_worker": "worker-test"}
    databases = {"auth_service": "auth_db", "user_service": "user_db", "celery_worker": "celery_db"}
    ports = {}
    for service in ("auth_service", "user_service", "figures"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[service] = free.getsockname()[1]

    def program(service: str, *words: str, **more: str) -> Program:
        environment = {
            "ENVIRONMENT": "dev",
            "PUBLIC_URL": "http://localhost:5173",
            **TOKEN_SECRETS.get(service, {}),
            "MONGO_URI": f"mongodb://127.0.0.1:{mongo.port}/{databases[service]}?directConnection=true",
            "REDIS_URI": f"redis://{service}:{passwords[service]}@127.0.0.1:{redis.port}/0",
            "TRACES_ENDPOINT": collector.endpoint,
            **more,
        }
        name = "-".join([service, *words])
        started = Program(logs / name, ["-W", "ignore", "-m", service, *words], environment)
        started.start()
        return started

    # Everybody comes from one address here.
    many = {"SIGN_UPS_PER_NETWORK": "10000", "MAILS_PER_NETWORK": "10000", "MAILS_PER_HOUR": "10000"}
    mail = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mailbox.smtp.port), "SMTP_SECURITY": "none"}
    programs = {
        **{
            service: program(service, BIND=f"127.0.0.1:{ports[service]}", **many)
            for service in ("auth_service", "user_service")
        },
        "worker": program("celery_worker", "worker", METRICS_PORT=str(ports["figures"]), **mail),
    }
    site = Site(
        f"http://127.0.0.1:{ports['auth_service']}",
        f"http://127.0.0.1:{ports['user_service']}",
        f"http://127.0.0.1:{ports['figures']}/metrics",
        programs["worker"],
        programs,
    )
    try:
        poll(lambda: is_ready(site.auth) and is_ready(site.user), 60, f"ready services; see {logs}")
        yield site
    finally:
        for each in programs.values():
            each.kill()


def is_ready(base: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{base}/readyz", timeout=10).status_code == 200
    return False


@pytest.fixture
def address() -> str:
    return f"{secrets.token_hex(6)}@example.com"
