#!/usr/bin/env python3
"""What traces cost: the cheapest request of the site, with traces off, of each request, and of one in ten.

usage: run.py [--rounds ROUNDS] [--seconds SECONDS]

Needs `make images` and nothing else. Three edges with a user_service behind each, alike but for their traces, on one
Redis, one database and one collector. They are asked in turns, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "services"))
from shared import keys  # noqa: E402
from shared.tokens import Claims, Signer  # noqa: E402

CLIENTS = 4
PORT = 8000
TICKS = os.sysconf("SC_CLK_TCK")
MODES = {"off": None, "1 in 1": 1.0, "1 in 10": 0.1}

COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Take(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        if self.headers.get("Content-Length"):
            self.rfile.read(int(self.headers["Content-Length"]))
        else:
            while length := int(self.rfile.readline(), 16):
                self.rfile.read(length + 2)
            self.rfile.readline()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("", 4318), Take).serve_forever()
"""


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"`docker {' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def images() -> dict[str, str]:
    return dict(line.split("=", 1) for line in (ROOT / ".cache/images.env").read_text().splitlines())


def edge_files(folder: Path, backend: str, ratio: float | None) -> None:
    """Write what role traefik writes, as far as it matters here: no TLS, which costs the same in all three."""
    (folder / "dynamic").mkdir(parents=True)
    static = [
        "accessLog: {format: json}",
        'entryPoints: {http: {address: ":80"}, traces: {address: ":4318", observability: {accessLogs: false, '
        "tracing: false}}}",
        "providers: {file: {directory: /etc/traefik/dynamic}}",
    ]
    if ratio is not None:
        static += [
            f"tracing: {{serviceName: edge, sampleRate: {ratio}, otlp: {{http: "
            '{endpoint: "http://127.0.0.1:4318/v1/traces"}}}'
        ]
    (folder / "traefik.yml").write_text("\n".join(static) + "\n")
    (folder / "dynamic/routes.yml").write_text(
        'http: {routers: {site: {rule: "PathPrefix(`/`)", entryPoints: [http], service: site},'
        ' traces: {rule: "Path(`/v1/traces`)", entryPoints: [traces], service: traces}},'
        f' services: {{site: {{loadBalancer: {{servers: [{{url: "http://{backend}:{PORT}"}}]}}}},'
        ' traces: {loadBalancer: {servers: [{url: "http://collector:4318"}]}}}}\n'
    )


@dataclass
class Side:
    """An edge and the service behind it."""

    edge: str
    service: str
    address: str
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"edge": [], "service": []})

    def ticks(self, container: str) -> int:
        """Processor time of all processes of a container."""
        total = 0
        for line in docker("top", container, "-eo", "pid").splitlines()[1:]:
            fields = Path(f"/proc/{line.strip()}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    def load(self, token: str, seconds: float) -> None:
        taken: list[float] = []
        failed: list[str] = []
        deadline = time.monotonic() + seconds

        def client() -> None:
            connection = http.client.HTTPConnection(self.address, 80, timeout=30)
            while time.monotonic() < deadline:
                began = time.perf_counter()
                connection.request("GET", "/api/users/me", headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                answer.read()
                taken.append(time.perf_counter() - began)
                if answer.status != 200:
                    failed.append(str(answer.status))
            connection.close()

        before = {"edge": self.ticks(self.edge), "service": self.ticks(self.service)}
        clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        if failed:
            sys.exit(f"{len(failed)} of {len(taken)} requests were answered with {set(failed)}")
        self.seconds += taken
        self.rates.append(len(taken) / seconds)
        for name, container in (("edge", self.edge), ("service", self.service)):
            self.cpu[name].append((self.ticks(container) - before[name]) / TICKS / len(taken) * 1e6)


@contextmanager
def sides(public_key: str) -> Iterator[dict[str, Side]]:
    """Start everything; remove it afterwards."""
    name, chosen = f"berth-traces-{secrets.token_hex(3)}", images()
    started: list[str] = []

    def start(role: str, image: str, *words: str, options: tuple[str, ...] = ()) -> str:
        container = f"{name}-{role}"
        started.append(container)
        place = (f"--name={container}", f"--network={name}", f"--network-alias={role}")
        docker("run", "--detach", *place, *options, image, *words)
        return container

    with tempfile.TemporaryDirectory() as folder:
        docker("network", "create", name)
        try:
            rights = f"--volume={ROOT}/services/tests_integration/users.acl:/users.acl:ro"
            start("redis", chosen["REDIS_IMAGE"], "redis-server", "--aclfile", "/users.acl", options=(rights,))
            start("mongo", chosen["MONGO_IMAGE"], "mongod", "--replSet", "rs0", "--bind_ip_all")
            start("collector", chosen["PYTHON_IMAGE"], "python3", "-c", COLLECTOR)
            found = {}
            for number, (mode, ratio) in enumerate(MODES.items()):
                files = Path(folder) / str(number)
                edge_files(files, f"user{number}", ratio)
                told = {
                    "ENVIRONMENT": "dev",
                    "JWT_PUBLIC_KEYS": public_key,
                    "MONGO_URI": "mongodb://mongo:27017/user_db?directConnection=true",
                    "REDIS_URI": "redis://user_service:user-test@redis:6379/0",
                    "TRACES_ENDPOINT": "" if ratio is None else f"http://edge{number}:4318/v1/traces",
                    "TRACES_RATIO": str(ratio or ""),
                }
                options = tuple(f"--env={variable}={value}" for variable, value in told.items())
                image = f"{chosen['IMAGE_PREFIX']}/user_service:{chosen['RELEASE']}"
                service = start(f"user{number}", image, options=options)
                edge = start(f"edge{number}", chosen["TRAEFIK_IMAGE"], options=(f"--volume={files}:/etc/traefik:ro",))
                asked = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
                address = docker("inspect", "--format", asked, edge)
                found[mode] = Side(edge, service, address)
            yield found
        finally:
            for container in started:
                subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, check=False)
            docker("network", "rm", name)


def wait_until_ready(side: Side, token: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(side.address, 80, timeout=5)
        try:
            connection.request("GET", "/api/users/me", headers={"Authorization": f"Bearer {token}"})
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.5)
    sys.exit(f"{side.service} does not answer: {docker('logs', '--tail=5', side.service)}")


def main() -> None:
    options = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=6)
    asked = options.parse_args()
    private_key = keys.new_private_key()
    public_key = keys.public_key(private_key)
    token = Signer(private_key, [public_key]).sign(
        Claims(secrets.token_hex(8), "ada@example.com", secrets.token_hex(8)), 3600
    )
    with sides(public_key) as found:
        for side in found.values():
            wait_until_ready(side, token)
            side.load(token, 2)
            side.seconds, side.rates = [], []
            side.cpu = {"edge": [], "service": []}
        for _ in range(asked.rounds):
            for side in found.values():
                side.load(token, asked.seconds)
    print("| traces | requests/s | p50, ms | p99, ms | CPU of the edge, us | CPU of the service, us | ratio of both |")
    print("|---|---|---|---|---|---|---|")
    base = sum(statistics.median(values) for values in found["off"].cpu.values())
    for mode, side in found.items():
        percent = [1000 * value for value in statistics.quantiles(side.seconds, n=100)]
        cpu = {name: statistics.median(values) for name, values in side.cpu.items()}
        print(
            f"| {mode} | {statistics.median(side.rates):.0f} | {percent[49]:.2f} | {percent[98]:.2f} "
            f"| {cpu['edge']:.0f} | {cpu['service']:.0f} | {sum(cpu.values()) / base:.2f} |"
        )
    print(f"\nload average {os.getloadavg()[0]:.1f}")


main()
