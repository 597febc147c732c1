"""Write what a service says of itself (OpenAPI) to openapi.json in its folder: `make openapi`.

usage: openapi.py [FOLDER ...]      without folders: every service
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from shared import keys

HERE = Path(__file__).resolve().parent
NAME = "openapi.json"


def folders() -> list[Path]:
    """Return the folders of services that have routes, and so a document."""
    return sorted(path.parent for path in HERE.glob("*/routes.py"))


def settings() -> dict[str, str]:
    """Return variables with which every service starts; its document has none of them."""
    private_key = keys.new_private_key()
    return {
        "ENVIRONMENT": "dev",
        "RELEASE": "unreleased",
        "MONGO_URI": "mongodb://database.invalid/x",
        "REDIS_URI": "redis://queue.invalid/0",
        "JWT_PRIVATE_KEY": private_key,
        "JWT_PUBLIC_KEYS": keys.public_key(private_key),
        "JWT_SECRET_KEY": "0123456789abcdef" * 2,
    }


def document(service: str) -> dict[str, Any]:
    """Return a service's document; its settings are in the environment."""
    found: dict[str, Any] = importlib.import_module(f"{service}.main").create_app().openapi()
    return found


def main(arguments: list[str]) -> None:
    os.environ.update(settings())
    for folder in [Path(each) for each in arguments] or folders():
        sys.path.insert(0, str(folder.parent))
        (folder / NAME).write_text(json.dumps(document(folder.name), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
