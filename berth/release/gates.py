"""What a release has to pass before traffic is switched to it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

from berth.host import clock, commands
from berth.host.commands import LAST_LINES, last_lines
from berth.host.live import COLOURS, Live, other
from berth.host.lock import Run
from berth.host.refused import Refused
from berth.release import counters, engine, jobs, signed
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.probe import Busy, ProbeFailed, Visit
from berth.release.watch import counts, is_slower

SNAPSHOT_SECONDS = 3600


@dataclass(frozen=True)
class Candidate:
    """The release under test, on its colour, beside what is live."""

    side: Side
    target: Live
    live: Live | None
    # The same release with the same settings is live and whole already.
    is_live: bool = False


@dataclass
class Gates:
    """Each raises Refused where the release does not pass."""

    host: Host
    run: Run
    before: counters.Seen = field(default_factory=counters.Seen)
    # How fast the live release answers; None where that is unknown, empty where it fails.
    usual: dict[str, float] | None = None

    def inspect(self) -> Candidate:
        """Check images and configuration, and choose the colour, changing nothing."""
        settings, live, release = self.host.settings, self.host.edge.live(), self.run.release
        idle = other(live.colour) if live else COLOURS[0]
        same = live is not None and live.release == release
        side = Side(settings, release, live.colour if live and same else idle)
        with self.host.lock.step("configuration"):
            # Read and checked here, before anything changes.
            jobs.refuse_invalid(side.kept.description)
            side.require_mounts()
            side.require_reachable()
        with self.host.lock.step("images"):
            fingerprint = side.fingerprint()
            signed.gate(side, self.run)
        if live and same and live.fingerprint == fingerprint and not side.not_healthy():
            return Candidate(side, live, live, is_live=True)
        return Candidate(Side(settings, release, idle), Live(release, idle, fingerprint), live)

    def clear(self, candidate: Candidate) -> None:
        """Stop what was left on the candidate's colour; note how the live release performs before."""
        colour, live = candidate.side.colour, candidate.live
        if engine.containers([colour]):
            engine.stop_colour(colour)
        self.host.lock.note(colour=colour)
        self.before = counts(self.host, live) if live else counters.Seen()
        self.usual = self._speed_of(live)

    def schema(self, candidate: Candidate) -> None:
        """Run the schema steps, which both releases have to work with. A rollback runs none."""
        if self.run.verb == "rollback":
            return
        with self.host.lock.step("schema"):
            live, settings = candidate.live, self.host.settings
            steps = candidate.side.schema_steps()
            if steps and live and settings.snapshot_before_schema:
                _save_databases(self.run.release)
            for service, command in steps.items():
                candidate.side.run_once(service, command, settings.schema_seconds)
            if live and self.usual and self._speed_of(live) == {}:
                raise Refused(
                    f"Since the schema step of {self.run.release} the live release {live.release} answers with errors. "
                    "The step is not undone: fix the data, or restore the backup from before it."
                )

    def start(self, candidate: Candidate) -> None:
        with self.host.lock.step("start"):
            candidate.side.start(self.host.settings.healthy_seconds)

    def smoke(self, candidate: Candidate) -> None:
        """Smoke-test the candidate through the edge, on a route that requires a secret, before it gets traffic."""
        live, settings = candidate.live, self.host.settings
        with self.host.lock.step("smoke"):
            usual = (self._speed_of(live) if self.usual else None) or {}
            for path, milliseconds in self._try(candidate).items():
                if path in usual and is_slower(usual[path], milliseconds, settings):
                    raise Refused(
                        f"Release {self.run.release} failed its smoke test: {path} takes {milliseconds:.0f} ms, "
                        f"and {usual[path]:.0f} ms on the live release."
                    )
        if live:
            counted = counts(self.host, live).since(self.before)
            self.host.lock.note(counted=counted.plain(), start=counts(self.host, candidate.target).plain())

    def _speed_of(self, live: Live | None) -> dict[str, float] | None:
        if live is None:
            return None
        try:
            return self.host.smoke.test(live, routed=True)
        except Busy:
            return None
        except ProbeFailed:
            return {}

    def _try(self, candidate: Candidate) -> dict[str, float]:
        """Return how fast the candidate answers."""
        side, smoke = candidate.side, self.host.smoke
        headers = self.host.edge.enable_trial(candidate.target)
        try:
            with closing(smoke.visit(candidate.target, headers)) as visitor:
                self._await_trial(visitor)
            return smoke.test(candidate.target, headers)
        except ProbeFailed as failed:
            culprit = side.container(failed.service) if failed.service else ""
            lines = failed.lines or (engine.logs(culprit, LAST_LINES).splitlines() if culprit else [])
            reason = f"Release {side.release} is healthy but failed its smoke test: {failed}"
            raise Refused(reason, culprit, lines) from failed
        finally:
            self.host.edge.end_trial()

    def _await_trial(self, visitor: Visit) -> None:
        """Wait until the edge has loaded the trial's routes. Any other fault shows in the test itself."""
        while True:
            try:
                visitor.ask(next(iter(visitor.paths)))
            except ProbeFailed:
                if visitor.seconds_left() <= self.host.settings.smoke_seconds / 2:
                    raise
                clock.sleep(0.2)
            else:
                return


def _save_databases(release: str) -> None:
    """Back up the databases before this release changes them."""
    options = (f"--reason=before the schema step of {release}", f"--tag=before-release:{release}")
    done = commands.run("berth", "backup", "run", *options, seconds=SNAPSHOT_SECONDS)
    if done.returncode:
        raise Refused(
            f"The backup before the schema step of {release} failed, so nothing was changed. Its output follows.",
            "berth backup",
            last_lines(done),
        )
