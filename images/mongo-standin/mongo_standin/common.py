"""What both tools have in common: options, the connection, messages."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

TOOL_VERSION = "100.0.0-standin"


def say(text: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')}\t{text}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    def __init__(self, name: str, does: str) -> None:
        super().__init__(
            prog=name,
            description=f"{does} STAND-IN for MongoDB's {name}, for demo and tests only: the options below, no others.",
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"{name} version: {TOOL_VERSION}")
        for option in ("host", "username", "password", "authenticationDatabase", "uri", "config", "db", "collection"):
            self.add_argument(f"--{option}", default="")
        self.add_argument("--port", default="27017")
        self.add_argument("--archive", nargs="?", const="-")
        self.add_argument("--gzip", action="store_true")
        self.add_argument("--numParallelCollections", type=int, default=4)
        self.add_argument("--quiet", action="store_true")
        self.add_argument("-v", "--verbose", action="count")

    def error(self, message: str) -> NoReturn:
        print(f"error parsing command line options: {message}\ntry '{self.prog} --help'", file=sys.stderr)
        sys.exit(1)


def config(place: str) -> dict[str, str]:
    """Read the few lines of YAML that may hold a password or an address."""
    found = {}
    for line in Path(place).read_text().splitlines():
        key, colon, value = line.partition(":")
        if not colon or key.strip() not in ("password", "uri", "sslPEMKeyPassword"):
            continue
        value = value.strip()
        if value[:1] == value[-1:] == "'" and len(value) > 1:
            value = value[1:-1].replace("''", "'")
        elif value[:1] == value[-1:] == '"' and len(value) > 1:
            value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        found[key.strip()] = value
    return found


def connect(asked: argparse.Namespace) -> MongoClient[Any]:
    given = config(asked.config) if asked.config else {}
    uri = asked.uri or given.get("uri", "")
    options: dict[str, Any] = {"directConnection": True, "document_class": RawBSONDocument}
    password = asked.password or given.get("password", "")
    if asked.username:
        options |= {"username": asked.username, "password": password}
        options["authSource"] = asked.authenticationDatabase or "admin"
    host = uri or f"mongodb://{asked.host or 'localhost'}:{asked.port}/"
    client: MongoClient[Any] = MongoClient(host, serverSelectionTimeoutMS=10_000, **options)
    client.admin.command("ping")
    return client
