"""A real edge with the configuration that the roles write, and clients: containers with addresses of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from berth.release.settings import Settings
from tests.support import ROOT, rendered

SITE = "site.test"


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Bed:
    """One network, with a place for each container on it."""

    name: str
    prefix4: str
    prefix6: str
    places: dict[str, int]

    def ipv4(self, who: str) -> str:
        return f"{self.prefix4}.{self.places[who]}"

    def ipv6(self, who: str) -> str:
        return f"{self.prefix6}::{self.places[who]}"

    @contextmanager
    def network(self) -> Iterator[None]:
        """Have the network; at the end, remove it and what stands on it."""
        try:
            subnets = [f"--subnet={self.prefix4}.0/24", f"--subnet={self.prefix6}::/64"]
            docker("network", "create", "--ipv6", *subnets, self.name)
            yield
        finally:
            names = [f"{self.name}-{who}" for who in self.places]
            subprocess.run(["docker", "rm", "--force", "--volumes", *names], check=False, capture_output=True)
            subprocess.run(["docker", "network", "rm", self.name], check=False, capture_output=True)

    def start(self, who: str, variable: str, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        place = [f"--name={self.name}-{who}", f"--network={self.name}", f"--ip={self.ipv4(who)}"]
        place += [f"--ip6={self.ipv6(who)}"]
        docker("run", "--detach", *place, *options, os.environ.get(variable, f"localhost/berth/{image}"), *command)

    def start_edge(self, who: str, static: Path, dynamic: Path, *options: str) -> None:
        volumes = [f"--volume={static}:/etc/traefik/traefik.yml:ro", f"--volume={dynamic}:/dynamic:ro"]
        own = ["--entrypoint=traefik", f"--user={os.getuid()}", "--env=EDGE=a", "--tmpfs=/acme", *volumes, *options]
        self.start(who, "TRAEFIK_IMAGE", "traefik:3", *own)


def certificate(folder: Path) -> None:
    """Make a certificate for the site, and tell the edge."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / "key.pem")]
    names = ["-days", "2", "-subj", f"/CN={SITE}", "-addext", f"subjectAltName=DNS:{SITE}"]
    command = ["openssl", "req", "-x509", *key, *names, "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    certificates = [{"certFile": "/dynamic/cert.pem", "keyFile": "/dynamic/key.pem"}]
    (folder / "certificate.yml").write_text(yaml.safe_dump({"tls": {"certificates": certificates}}))


def settings_of_releases(root: Path, **edge: Any) -> Settings:
    """Write down what role stack does for `berth release`, and keep the project's compose file as release 1.0."""
    numbers = {one.name: 1 for one in fields(Settings) if one.default is one.default_factory is MISSING}
    places = {"root": str(root), "edge": str(root / "edge"), "domain": SITE, "image_prefix": "x"}
    (root / "settings.json").write_text(json.dumps({**numbers, **places, **edge}))
    settings = Settings.read(root / "settings.json")
    for folder in (settings.releases / "1.0", settings.edge / "dynamic", settings.edge / "next"):
        folder.mkdir(parents=True)
    settings.kept("1.0").compose_file.write_text((ROOT / "docker-compose.prod.yml").read_text())
    (root / ".env").touch()
    return settings


def write_rules(settings: Settings, **traefik: object) -> None:
    """Write what role traefik writes for every release, and the certificate."""
    dynamic = settings.edge / "dynamic"
    known = {"traefik_domain": SITE, "_traefik_to": "nobody", **traefik}
    (dynamic / "edge.yml").write_text(rendered("traefik", "opt/berth/traefik/dynamic/edge.yml.j2", **known))
    certificate(dynamic)


def static_configuration(**traefik: object) -> str:
    return rendered("traefik", "opt/berth/traefik/traefik.yml.j2", traefik_domain=SITE, **traefik)
