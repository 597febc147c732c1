"""The watch after the switch: what the services count is compared with what those of the release before counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from berth.host import clock
from berth.host.commands import LAST_LINES
from berth.host.lock import Run, is_alive
from berth.host.refused import Refused
from berth.release import counters, engine, unit
from berth.release.host import Host
from berth.release.settings import Settings

# How often services are asked what they counted: summing up their workers' counters costs them some milliseconds.
LOOK_SECONDS = 1
# How often it is seen whether the controller has spoken.
LISTEN_SECONDS = 0.3
# So long a service may be silent, or answer badly, until that is held against its release. A flood may delay an answer.
SILENT_SECONDS = 10
# Beyond so many times the work of before, that requests take longer is no sign of a worse release. Of the edge's work,
# so much of a processor besides: one that has little to do doubles it easily.
COMPARABLE = 1.5
SPARE_PROCESSORS = 0.1
# Fewer failures of work after an answer say nothing; few people sign up while a release is watched.
LATE_FAILURES = 3


def watch_release(host: Host, run: Run) -> str:
    """Watch a release that is live, until the time is over and the controller has said what it saw from outside.

    Return what is to be remembered of it. Raises Refused where the release does worse than the one before, or
    the controller objects.
    """
    # A rollback is not compared: the release that it leaves is what was bad.
    compared = bool(run.live) and run.verb != "rollback"
    silence, next_look = Silence(), 0.0
    with host.lock.step("watch"):
        end = clock.monotonic() + (host.settings.watch_seconds if compared else 0)
        # So long a look from outside may take, and as long again until it is under way.
        latest = clock.monotonic() + 2 * host.settings.smoke_seconds
        while True:
            objection = unit.judgement(run.id)
            if objection:
                raise Refused(objection)
            if compared and clock.monotonic() >= next_look:
                compare(host, run, silence)
                next_look = clock.monotonic() + LOOK_SECONDS
            # Who is silent at the end is waited for, or found at fault.
            if clock.monotonic() >= end and not silence.since:
                if objection is not None:
                    return ""
                if clock.monotonic() >= latest or not is_alive(run):
                    return "Nobody looked from outside: its controller was gone."
            clock.sleep(LISTEN_SECONDS)


def counts(host: Host, colour: str) -> counters.Seen:
    """Return what a colour's services have counted until now."""
    return counters.look(engine.places(colour), host.edge.ports(), engine.edges())


def compare(host: Host, run: Run, silence: Silence) -> None:
    """Raise Refused where a release that is live does worse than the one before."""
    before, start = counters.Seen.read(run.counted), counters.Seen.read(run.start)
    found = {one.name: one for one in engine.containers([run.colour])}
    seen = counts(host, run.colour)
    worse, culprit = "", ""
    if ill := next((one for one in found.values() if one.health != "healthy"), None):
        worse, culprit = f"{ill.name} is {ill.health}.", ill.name
    elif gone := next((name for name in start.began if name not in found), ""):
        worse = f"{gone} is gone."
    elif again := next((name for name, began in seen.began.items() if start.began.get(name, began) != began), ""):
        worse, culprit = f"{again} ended, and was started again.", again
    worse = worse or silence.heard({*before.services, *start.services}, seen)
    worse = worse or verdict(before, seen.since(start), host.settings)
    if worse:
        lines = engine.logs(culprit, LAST_LINES).splitlines() if culprit else []
        reason = f"Release {run.release} does worse than {run.live['release']} did: {worse}"
        raise Refused(reason, culprit, lines)


@dataclass
class Silence:
    """Who has not answered, and since when."""

    since: dict[str, float] = field(default_factory=dict)

    def heard(self, counting: Iterable[str], seen: counters.Seen) -> str:
        """Say who has been silent for too long. Who counted once and does not any more is silent, too."""
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
                share = f"{part:.0%} of the requests{to}"
                return f"{share} take up to {slow:.0f} ms since the switch, before {usual:.0f} ms."
    return ""


def fails_late(past: counters.Service, now: counters.Service, settings: Settings) -> bool:
    """Tell whether more of the work after answers fails than before. No client can cause that."""
    allowed = past.late_failed_percent + settings.watch_errors_percent
    return now.late_failures >= LATE_FAILURES and now.late_failed_percent > allowed


def is_comparable(before: counters.Seen, after: counters.Seen) -> bool:
    """Tell whether the site has no more to do than before: where a flood makes it slow, the release does not.

    All of it, since services and edge share the host's processor. What there is to do is weighed by how long the
    release before took for each kind of request, so that being slow is not taken for being asked more. For the edge,
    which also has what never becomes a request, it is the time of its processor.
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
    """By a factor, and by enough that somebody could notice."""
    return new > old * settings.slower_factor and new - old > settings.slower_ms
