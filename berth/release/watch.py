"""The watch after the switch: the services' counters are compared with those of the release before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from berth.host import clock
from berth.host.commands import LAST_LINES
from berth.host.live import Live
from berth.host.lock import Run, is_alive
from berth.host.refused import Refused
from berth.release import counters, engine, unit
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.retire import is_emergency
from berth.release.settings import Settings

# How often the services' counters are read: summing those of their workers costs some milliseconds.
LOOK_SECONDS = 1
# How often to look for the controller's verdict.
LISTEN_SECONDS = 0.3
# A service may be unresponsive for so long before that counts against its release. A flood may delay an answer.
SILENT_SECONDS = 10
# With more than so many times the earlier load, higher latency is no sign of a worse release. For the edge, so much of
# a processor on top: a small load doubles easily.
COMPARABLE = 1.5
SPARE_PROCESSORS = 0.1
# Fewer failures of work after an answer say nothing; few people sign up while a release is watched.
LATE_FAILURES = 3


def watch_release(host: Host, run: Run) -> str:
    """Watch a release that is live, until the time is over and the controller has reported its check from outside.

    Return a note for the history. Raises Refused where the release performs worse than the one before, or the
    controller objects.
    """
    # A rollback is not compared: the release before it was the bad one.
    compared = bool(run.live) and run.verb != "rollback"
    silence, next_look = Silence(), 0.0
    with host.lock.step("watch"):
        end = clock.monotonic() + (host.settings.watch_seconds if compared and not is_emergency(run) else 0)
        # The check from outside may take so long, and as long again to start.
        latest = clock.monotonic() + 2 * host.settings.smoke_seconds
        while True:
            objection = unit.judgement(run.id)
            if objection:
                raise Refused(objection)
            if compared and clock.monotonic() >= next_look:
                compare(host, run, silence)
                next_look = clock.monotonic() + LOOK_SECONDS
            # A service that is silent at the end is waited for, until it answers or fails the release.
            if clock.monotonic() >= end and not silence.since:
                if objection is not None:
                    return ""
                if clock.monotonic() >= latest or not is_alive(run):
                    return "Not checked from outside: the controller had disconnected."
            clock.sleep(LISTEN_SECONDS)


def counts(host: Host, live: Live) -> counters.Seen:
    """Return what the services of a release have counted until now."""
    side = Side.on(host.settings, live)
    return counters.look(side.places(), side.known, engine.edges())


def compare(host: Host, run: Run, silence: Silence) -> None:
    """Raise Refused where the live release performs worse than the one before."""
    before, start = counters.Seen.read(run.counted), counters.Seen.read(run.start)
    live = Live(run.release, run.colour)
    found = {one.name: one for one in Side.on(host.settings, live).containers()}
    seen = counts(host, live)
    worse, culprit = "", ""
    if ill := next((one for one in found.values() if one.health != "healthy"), None):
        worse, culprit = f"{ill.name} is {ill.health}.", ill.name
    elif gone := next((name for name in start.began if name not in found), ""):
        worse = f"{gone} is gone."
    elif again := next((name for name, began in seen.began.items() if start.began.get(name, began) != began), ""):
        worse, culprit = f"{again} exited and was restarted.", again
    worse = worse or silence.heard({*before.services, *start.services}, seen)
    worse = worse or verdict(before, seen.since(start), host.settings)
    if worse:
        lines = engine.logs(culprit, LAST_LINES).splitlines() if culprit else []
        reason = f"Release {run.release} performs worse than {run.live['release']} did: {worse}"
        raise Refused(reason, culprit, lines)


@dataclass
class Silence:
    """Which services do not answer, and since when."""

    since: dict[str, float] = field(default_factory=dict)

    def heard(self, counting: Iterable[str], seen: counters.Seen) -> str:
        """Report a service that has been silent for too long; one that no longer serves its counters is silent, too."""
        silent = {name: "serves no metrics" for name in counting if name not in seen.services} | seen.silent
        self.since = {name: self.since.get(name, seen.at) for name in silent}
        for name, how in seen.dead.items():
            return f"{name} {how}."
        for name, how in silent.items():
            if seen.at - self.since[name] >= SILENT_SECONDS:
                return f"{name} {how}, for {seen.at - self.since[name]:.0f} s."
        return ""


def verdict(before: counters.Seen, after: counters.Seen, settings: Settings) -> str:
    """Return what got worse, as a sentence; empty where nothing did, or too little was seen to say."""
    none = counters.Service()
    for name, new in after.services.items():
        if new.lost > before.services.get(name, none).lost:
            return f"{name} has lost {new.lost:.0f} worker processes since the switch."
        if fails_late(before.services.get(name, none), new, settings):
            return (
                f"{name} answered {new.accepted:.0f} requests since the switch whose work was still to be done,"
                f" and {new.late_failures:.0f} times that work failed."
            )
    pairs = [(f" to {name}", before.services.get(name, none).total, new.total) for name, new in after.services.items()]
    pairs.append(("", counters.summed(old for _, old, _ in pairs), counters.summed(new for _, _, new in pairs)))
    for to, past, now in pairs:
        allowed = past.failed_percent + settings.watch_errors_percent
        if now.requests >= settings.watch_requests and now.failed_percent > allowed:
            return (
                f"{now.failed:.0f} of {now.requests:.0f} requests{to} failed since the switch "
                f"({now.failed_percent:.1f} %, before {past.failed_percent:.1f} %)."
            )
    if not is_comparable(before, after):
        return ""
    for to, past, now in pairs[:-1]:
        if min(past.requests, now.requests) < settings.watch_requests:
            continue
        for part in (0.5, 0.9):
            slow, usual = now.quantile_ms(part), past.quantile_ms(part)
            if is_slower(usual, slow, settings):
                latency = f"p{100 * part:.0f} latency of requests{to}"
                return f"{latency} is {slow:.0f} ms since the switch, before {usual:.0f} ms."
    return ""


def fails_late(past: counters.Service, now: counters.Service, settings: Settings) -> bool:
    """Tell whether more of the work after answers fails than before. No client can cause that."""
    allowed = past.late_failed_percent + settings.watch_errors_percent
    return now.late_failures >= LATE_FAILURES and now.late_failed_percent > allowed


def is_comparable(before: counters.Seen, after: counters.Seen) -> bool:
    """Tell whether the load is comparable with before: under a flood, high latency is not the release's fault.

    All services count, since they share the host's processor with the edge. Each kind of request is weighted by the
    time that the release before took for it, so that a slow release does not look like a higher load. For the edge,
    which also handles what never becomes a request, it is processor time.
    """
    if not before.at or not after.at or any(service.total.refused for service in after.services.values()):
        return False
    if after.edge / after.at > COMPARABLE * before.edge / before.at + SPARE_PROCESSORS:
        return False
    past = work = 0.0
    for name, service in after.services.items():
        known = before.services.get(name, counters.Service())
        past += known.total.seconds
        for route, found in service.routes.items():
            pace = known.routes.get(route, found)
            pace = pace if pace.requests else found
            work += found.requests * pace.seconds / max(pace.requests, 1)
    return work / after.at <= COMPARABLE * past / before.at


def is_slower(old: float, new: float, settings: Settings) -> bool:
    """Slower by a factor, and by enough milliseconds to notice."""
    return new > old * settings.slower_factor and new - old > settings.slower_ms
