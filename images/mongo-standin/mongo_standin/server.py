"""SecantusDB with a version and a featureCompatibilityVersion of its own, as a mongod has them. See README.md.

The version is MONGO_STANDIN_VERSION, or the one that SecantusDB claims; the featureCompatibilityVersion lies with the
data. Rules and error codes are MongoDB's: https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# What a mongod ends with where its data is of a version that it does not know.
UNKNOWN_DATA = 62
CONFIRMED_FROM = 7


@dataclass(frozen=True)
class Version:
    """A version of MongoDB: 8.0.4."""

    numbers: tuple[int, ...]

    @classmethod
    def read(cls, text: str) -> Version:
        return cls(tuple(int(one) for one in text.split(".")))

    @property
    def text(self) -> str:
        return ".".join(map(str, self.numbers))

    @property
    def series(self) -> str:
        """The version's own featureCompatibilityVersion."""
        return f"{self.numbers[0]}.{self.numbers[1]}"

    @property
    def before(self) -> str:
        """The other one that it starts on."""
        major, minor = self.numbers[:2]
        return f"{major}.0" if minor else f"{major - 1}.0"


class Refused(Exception):  # noqa: N818  # "raise Refused" says it
    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(text)
        self.answer = {"ok": 0.0, "errmsg": text, "code": code, "codeName": name}


class Compatibility:
    """The featureCompatibilityVersion of a data directory."""

    def __init__(self, version: Version, folder: Path) -> None:
        self.version, self._file = version, folder / "featureCompatibilityVersion"

    def open(self) -> None:
        """Give a new data directory the version's own; end where this version does not start on what is there."""
        if not self._file.exists():
            self._write(self.version.series)
        if self.now not in (self.version.series, self.version.before):
            print(
                f"UPGRADE PROBLEM: featureCompatibilityVersion is {self.now}, and {self.version.text} starts on "
                f"{self.version.before} and {self.version.series} only",
                file=sys.stderr,
            )
            sys.exit(UNKNOWN_DATA)

    @property
    def now(self) -> str:
        return self._file.read_text()

    def change(self, asked: Mapping[str, Any]) -> None:
        """Do what the command asks for. Raises Refused."""
        wanted, needs_confirm = asked["setFeatureCompatibilityVersion"], self.version.numbers[0] >= CONFIRMED_FROM
        if wanted not in (self.version.series, self.version.before):
            raise Refused(4926900, "Location4926900", f"Invalid feature compatibility version value '{wanted}'")
        if "confirm" in asked and not needs_confirm:
            field = "BSON field 'setFeatureCompatibilityVersion.confirm' is an unknown field."
            raise Refused(40415, "Location40415", field)
        if needs_confirm and asked.get("confirm") is not True:
            raise Refused(7369100, "Location7369100", "This cannot be taken back: re-run it with 'confirm: true'.")
        self._write(wanted)

    def _write(self, series: str) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(series)
        draft.replace(self._file)


def add_commands(commands: Any, found: Compatibility) -> None:
    """Teach SecantusDB what it lacks, and have it name this version."""
    commands.SERVER_VERSION = found.version.text
    commands.SERVER_VERSION_ARRAY = [*found.version.numbers, 0]
    handlers, ask = commands._HANDLERS, commands._HANDLERS["getParameter"]

    def note(context: Any, **entry: Any) -> None:
        with context.storage._lock:
            context.storage._emit_oplog([entry])

    def get_parameter(asked: dict[str, Any], context: Any) -> dict[str, Any]:
        answer: dict[str, Any] = ask(asked, context)
        if "featureCompatibilityVersion" in answer:
            answer["featureCompatibilityVersion"] = {"version": found.now}
        return answer

    def set_version(asked: dict[str, Any], context: Any) -> dict[str, Any]:
        try:
            if context.db_name != "admin":
                raise Refused(13, "Unauthorized", "may only be run against the admin database.")
            found.change(asked)
        except Refused as refused:
            return refused.answer
        about = {"_id": "featureCompatibilityVersion", "version": found.now}
        note(context, op="u", ns="admin.system.version", o=about, o2={"_id": about["_id"]})
        return {"ok": 1.0}

    def append_note(asked: dict[str, Any], context: Any) -> dict[str, Any]:
        note(context, op="n", ns="", o=dict(asked["data"]))
        return {"ok": 1.0}

    handlers |= {
        "getParameter": get_parameter,
        "setFeatureCompatibilityVersion": set_version,
        "appendOplogNote": append_note,
    }
    # As much as setParameter and fsync ask of a user.
    actions = commands._COMMAND_ACTIONS
    actions |= {"setFeatureCompatibilityVersion": actions["setParameter"], "appendOplogNote": actions["fsync"]}


def main() -> int:
    """Run `mongod --version`, or SecantusDB with its own options."""
    commands = import_module("secantus.commands")
    version = Version.read(os.environ.get("MONGO_STANDIN_VERSION", commands.SERVER_VERSION))
    if sys.argv[1:] == ["--version"]:
        print(f"db version v{version.text}\nSecantusDB stand-in for MongoDB (test and demo only)")
        return 0
    found = Compatibility(version, Path(sys.argv[sys.argv.index("--storage-path") + 1]))
    found.open()
    add_commands(commands, found)
    code: int = import_module("secantus.cli").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
