"""berth-edge-ban: find clients that abuse the edge, and block visitors there.

usage: berth-edge-ban SETTINGS watch | add NETWORK | remove NETWORK | clear

`watch` follows the edge's access log and writes one line for each network to ban; fail2ban reads these lines. Only
fail2ban calls the other commands, where visitors come through a proxy. To ban by hand, use `fail2ban-client`, which
keeps the ban across restarts.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from berth_edge_ban import journal, routes
from berth_edge_ban.abuse import FLOOD, SIGN_IN, kind
from berth_edge_ban.counter import Counter
from berth_edge_ban.networks import network, text, visitor


class Watch:
    """Counts each network's abuse. Its settings are those of templates/etc/fail2ban/berth-edge.json."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._sign_in = str(settings["sign_in_path"])
        self._proxies = [ip_network(one, strict=False) for one in settings["proxies"]]
        self._spared = [*self._proxies, *(ip_network(one, strict=False) for one in settings["ignore"])]
        # A client that floods is looked up for every request.
        self._who = functools.lru_cache(1024)(self._network)
        self._limits = {SIGN_IN: settings["sign_ins"], FLOOD: settings["floods"]}
        self._counters = {name: Counter(limit["most"], limit["seconds"]) for name, limit in self._limits.items()}

    def _network(self, hops: str) -> str | None:
        address = visitor(hops, self._proxies)
        found = network(address, self._spared) if address else None
        return None if found is None else text(found)

    def verdicts(self, lines: Iterable[tuple[float, str]]) -> Iterator[str]:
        """Yield a line for each network that has reached a limit."""
        for now, line in lines:
            try:
                request = json.loads(line)
            except ValueError:
                continue
            if not isinstance(request, dict) or (found := kind(request, self._sign_in)) is None:
                continue
            who = self._who(str(request.get("ClientHost", "")))
            if who is not None and self._counters[found].reaches(who, now):
                limit = self._limits[found]
                yield f"{who} sent {limit['most']} {found} within {limit['seconds']} seconds"


def main(arguments: list[str]) -> int:
    match arguments:
        case [settings, "watch"]:
            chosen = json.loads(Path(settings).read_text())
            for verdict in Watch(chosen).verdicts(journal.follow(chosen["containers"])):
                print(verdict, flush=True)
            # `follow` returns only if journalctl exits; systemd then restarts this program.
            return 1
        case [settings, "add", banned]:
            routes.add(_folder(settings), ip_network(banned, strict=False))
        case [settings, "remove", banned]:
            routes.remove(_folder(settings), ip_network(banned, strict=False))
        case [settings, "clear"]:
            routes.clear(_folder(settings))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def _folder(settings: str) -> Path:
    return Path(json.loads(Path(settings).read_text())["directory"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
