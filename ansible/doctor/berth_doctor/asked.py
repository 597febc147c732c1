"""The input of host.py and outside.py, from the values of the inventory.

A value that could not be read is missing, and its subject is then not checked.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

Values = dict[str, Any]

SITE_PORTS = (80, 443)
# Ports of databases, Docker and dashboards, which must not be open to the internet.
CLOSED_PORTS = (2375, 2376, 3306, 5432, 5555, 6379, 8080, 9090, 9093, 9100, 9200, 11211, 27017)
# Masking shorter texts would also mask words that are not secret.
SHORTEST_SECRET = 6
# How a placeholder of the example begins.
OPEN = "<"


def is_open(value: Any) -> bool:
    """Tell whether a value is still the example's placeholder."""
    text = str(value or "")
    # A sender's address may be in angle brackets, but has no space in it.
    return (
        (text.startswith(OPEN) and (" " in text or "@" not in text))
        or "your-company.net" in text
        or "your-provider.net" in text
    )


def filled(values: Values, name: str) -> Any:
    """Return a value, or None if it is still the example's placeholder."""
    value = values.get(name)
    return None if is_open(value) else value


def names(values: Values) -> list[str]:
    """Return the site's domain and aliases."""
    domain = filled(values, "domain")
    return [name for name in [domain, *(values.get("aliases") or [])] if name]


def for_outside(values: Values) -> dict[str, Any]:
    return {
        "names": names(values),
        "resolvers": values.get("resolvers") or [],
        "address": filled(values, "address") or "",
        "site_ports": SITE_PORTS,
        "ssh_port": int(values.get("ssh_port") or 22),
        "closed_ports": CLOSED_PORTS,
        "seconds": values.get("seconds") or 5,
    }


def for_host(values: Values) -> dict[str, Any]:
    root = values.get("root") or "/opt/berth"
    return {
        "root": root,
        "disks": ["/", "/var/lib/docker"],
        "timezone": values.get("timezone") or "Etc/UTC",
        "ports": list(SITE_PORTS),
        "domain": filled(values, "domain") or "",
        "own_address": values.get("own_address") or "",
        "edge": "berth-traefik",
        "acme": {"directory": values["acme_directory"], "ca": values.get("acme_ca") or ""}
        if values.get("acme_directory")
        else None,
        "smtp": _smtp(values),
        "backups": backups(values),
        "log_servers": values.get("log_servers") or [],
        "traces": {
            "endpoint": values["traces_endpoint"],
            "headers": values.get("traces_headers") or {},
            "ca": values.get("traces_ca") or "",
        }
        if values.get("traces_endpoint")
        else None,
        "registry": _registry(values),
        "web": {name: url for name, url in (values.get("web") or {}).items() if url},
        "secrets": secrets(values.get("secrets")),
    }


def _smtp(values: Values) -> dict[str, Any] | None:
    if not filled(values, "smtp_host"):
        return None
    return {
        "host": values["smtp_host"],
        "port": values.get("smtp_port") or 587,
        "security": values.get("smtp_security") or "starttls",
        "username": values.get("smtp_username") or "",
        "password": values.get("smtp_password") or "",
        "sender": filled(values, "mail_from") or "",
        "operator": filled(values, "operator_mail") or "",
        "mail_to": values.get("mail_to") or "",
        "domain": filled(values, "domain") or "berth",
    }


def backups(values: Values) -> list[dict[str, Any]]:
    """Return each target with the files that role backup writes for it; @FOLDER@ is a placeholder for their folder."""
    files = values.get("backup_files") or []
    environment = values.get("backup_environment") or {}
    return [
        {
            "name": target["name"],
            "repository": target["repository"],
            "options": target.get("options") or {},
            "environment": environment.get(target["name"]) or {},
            "files": [one for one in files if one["name"].startswith(target["name"] + ".")],
            "password": values.get("backup_password") or "",
        }
        for target in values.get("backup_settings") or []
    ]


def _registry(values: Values) -> dict[str, Any] | None:
    """Return the registry and its login, if the host pulls images."""
    if values.get("transport") != "registry" or not values.get("image_prefix"):
        return None
    host, _, path = str(values["image_prefix"]).partition("/")
    # Docker Hub's API has another host name, which only the engine knows.
    if host == "docker.io" or ("." not in host and ":" not in host and host != "localhost"):
        return None
    # A login is for a repository: that of any image of the application, which the host pulls.
    own = values.get("own_images")
    if not own:
        return None
    local = urlsplit(f"//{host}").hostname in ("localhost", "127.0.0.1")
    return {
        "host": host,
        "scheme": "http" if local else "https",
        "repository": f"{path}/{own[0]}".lstrip("/"),
        "username": values.get("registry_username") or "",
        "password": values.get("registry_password") or "",
    }


def secrets(value: Any) -> list[str]:
    """Return all strings in a nested value that are long enough to be masked, the longest first."""
    found = set()

    def collect(one: Any) -> None:
        if isinstance(one, dict):
            for inner in one.values():
                collect(inner)
        elif isinstance(one, list | tuple):
            for inner in one:
                collect(inner)
        elif isinstance(one, str) and len(one) >= SHORTEST_SECRET:
            found.add(one)

    collect(value)
    return sorted(found, key=len, reverse=True)
