"""Turn facts into lines of the table. Each line says what was found, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from berth_doctor import judge_controller, judge_host, judge_outside, judge_reach
from berth_doctor.lines import Facts, Line, skipped

CHECKS: tuple[Callable[[Facts], Iterator[Line]], ...] = (
    judge_controller.inventory,
    judge_controller.vault,
    judge_controller.secrets,
    judge_controller.key,
    judge_controller.images,
    judge_outside.login,
    judge_outside.dns,
    judge_outside.caa,
    judge_outside.ports,
)
# These need the host's facts.
HOST_CHECKS: tuple[Callable[[Facts, Facts], Iterator[Line]], ...] = (
    judge_host.system,
    judge_host.cpu,
    judge_host.memory,
    judge_host.disk,
    judge_host.clock,
    judge_host.updates,
    judge_host.missing,
    judge_reach.archives,
    judge_reach.acme,
    judge_reach.certificate,
    judge_reach.mail,
    judge_reach.registry,
    judge_reach.backups,
    judge_reach.log_servers,
    judge_reach.traces,
    judge_reach.web,
)


def judge(facts: Facts) -> list[dict[str, str]]:
    """Return the lines of the table, as they are written to JSON."""
    lines = [line for check in CHECKS for line in check(facts)]
    if host := facts.get("host"):
        lines += [line for host_check in HOST_CHECKS for line in host_check(host, facts)]
    else:
        lines.append(skipped("host", "Host", "not checked: no login"))
    return [asdict(line) for line in lines]
