"""A release, step by step. Until the switch nobody outside notices; after it, the old colour stands ready."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from berth_release import clock, engine, files, unit, watch
from berth_release.clock import now
from berth_release.edge import Edge, Live
from berth_release.engine import (
    LAST_LINES,
    Side,
    containers,
    discard,
    edges,
    last_lines,
    logs,
    places,
    stop_colour,
)
from berth_release.probe import Busy, Visit, Wrong
from berth_release.records import Records, Run, boot, is_alive
from berth_release.settings import COLOURS, IMAGES, Refused, Settings, other, stuck

# Nobody can own an address under .invalid, so nobody else can verify this account. Each host's own has a part that
# nobody can guess, either: wrong guesses at its password would have it refused, and with it each release. The first is
# that of programs before this one.
PROBE_EMAIL = "release-probe@berth.invalid"
OWN_PROBE_EMAIL = "release-probe-{}@berth.invalid"
# How often services are asked what they counted.
LOOK_SECONDS = 1
# So many rounds of answers in a row, and the edge has read the new routes.
CONFIRMATIONS = 3
SNAPSHOT_SECONDS = 3600
# Whose record this is; a restore's is settled by berth-backup.
RELEASES, RESTORE = ("release", "rollback"), "restore"
PATHS = ("/", "/api/auth/openapi.json", "/api/users/openapi.json")


@dataclass
class Deploy:
    settings: Settings
    edge: Edge
    records: Records

    # --- the verbs ---

    def begin(self, verb: str, release: str, by: str, force: bool, break_lock: bool) -> dict[str, Any]:
        """Take the lock. What somebody else left half done is finished or undone first."""
        with self.records.guarded():
            settled = self._free(break_lock)
            release = release or self._previous()
            if verb == "rollback":
                # A release that this host does not have is a mistake of typing, and no attempt.
                Side(self.settings, release, COLOURS[0]).inspect_images()
            marked = self.records.rolled_back()
            if release in marked and not force:
                raise Refused(
                    f"Release {release} was rolled back at {marked[release]}. "
                    "Choose another one; or, if it is meant, say -e release_force=true."
                )
            live = self.edge.live()
            who = self.records.begin(verb, release, by, vars(live) if live else {})
            unit.clear()
            return {"changed": bool(settled), "run": who.id, "release": release, "settled": settled}

    def start(self, run_id: str) -> dict[str, Any]:
        """Have it done. Return when the edge leads there; it is watched to its end, whoever else looks."""
        self._mine(run_id)
        unit.launch(run_id)
        return unit.switched(run_id) or self._outcome(run_id)

    def run(self, run_id: str) -> dict[str, Any]:
        """All of it, from the gates to the end of the old colour. Asks the controller for nothing but its opinion."""
        with self.records.guarded():
            who = self._mine(run_id)
            with self._or_undo(who):
                started = self._start(who)
                unit.tell_switched(run_id, started)
                unit.ready()
                if "already" in started:
                    return started
                note = self._watch(self._mine(run_id))
            return self._end(self._mine(run_id), note)

    def finish(self, run_id: str) -> dict[str, Any]:
        """The controller has looked from outside, and all was well. Return how the watch ended."""
        unit.judge(run_id, "")
        return self._outcome(run_id)

    def undo(self, run_id: str, reason: str) -> dict[str, Any]:
        """Go back to what was live before, because the controller says so.

        Where the program was first, for a reason of its own, that one is returned: what the controller saw came of it.
        """
        who = self.records.current()
        ours = who is not None and who.id == run_id
        if ours:
            unit.judge(run_id, reason)
            # The program, if it runs, is the one that goes back.
            with self.records.guarded(wait=True):
                who = self.records.current()
                if who and who.id == run_id:
                    self._undo(who, Refused(reason))
        try:
            live = unit.ended(run_id)
        except Refused as own:
            return {"changed": ours, "reason": own.reason, "guilty": own.guilty, "lines": own.lines}
        return {"changed": ours} | (
            {"note": "It has stayed live all the same: this was said too late."} if live else {}
        )

    def settle(self, guarded: bool = False) -> dict[str, Any]:
        """Finish or undo what was cut off: after the program was ended, or the host has started again.

        With `guarded` the caller holds the lock.
        """
        with nullcontext() if guarded else self.records.guarded(wait=True):
            who = self.records.current()
            # A restore has a unit of its own for this.
            if who is None or self._is_waited_for(who) or who.verb == RESTORE:
                return {"changed": False}
            return {"changed": True, "settled": self._settle(who)}

    def maintenance(
        self, on: bool, addresses: list[str], by: str = "", force: bool = False, guarded: bool = False
    ) -> dict[str, Any]:
        """Close the site to everybody but operators, or open it again, unless what they would meet is down."""
        with nullcontext() if guarded else self.records.guarded():
            closed = bool(self.edge.maintenance_key())
            live = self.edge.live()
            if not on:
                if closed and not force:
                    self._refuse_to_open(live, guarded)
                self.edge.open()
                if closed and live:
                    self._confirm(live)
                return {"changed": closed}
            if live is None:
                raise Refused("Nothing is live, so there is nothing to close: the edge answers 503 already.")
            same = closed and self.edge.maintenance_addresses() == addresses
            if not same:
                self._close(live, addresses, by)
            return {"changed": not same, "header": self.edge.pass_header(), "addresses": addresses}

    def _refuse_to_open(self, live: Live | None, guarded: bool) -> None:
        """Keep the page where visitors would meet errors behind it."""
        way = "To open it all the same: -e maintenance_force=true"
        if not guarded and (who := self.records.current()):
            raise Refused(f"{self.records.describe(who)} and is not finished, so the site stays closed. {way}")
        if live and (down := self._down(live.colour)):
            raise Refused(
                f"{', '.join(down)}: the site stays closed, since visitors would meet errors. Start what is down "
                f"(docker start NAME), or release {live.release} again. {way}"
            )

    def _down(self, colour: str) -> list[str]:
        """Describe what the live colour lacks."""
        found = {one.service: one for one in containers([colour])}
        wanted = [*IMAGES, "beat", *(name for name in found if name not in IMAGES)]
        states = {name: found[name].state if name in found else "missing" for name in wanted}
        return [f"{name} is {state}" for name, state in states.items() if state != "healthy"]

    # --- what start consists of ---

    def _start(self, who: Run) -> dict[str, Any]:
        live = self.edge.live()
        same = live is not None and live.release == who.release
        side = Side(self.settings, who.release, live.colour if live and same else self._idle(live))
        with self._step("images"):
            side.inspect_images()
        with self._step("configuration"):
            side.check_configuration()
            fingerprint = side.fingerprint()
        if live and same and live.fingerprint == fingerprint and self._is_whole(live.colour):
            return self._nothing_to_do(who, live)
        target = Live(who.release, self._idle(live), fingerprint)
        side = Side(self.settings, who.release, target.colour)
        # Leftovers of an earlier attempt would be in the way.
        if containers([side.colour]):
            stop_colour(side.colour)
        self._note(colour=side.colour)
        self._gates(side, live, target, who.verb)
        self._switch(side, live, target)
        return {
            "changed": True,
            "from": live.signature if live else "nothing",
            "to": target.signature,
            "probe": self._description(self.edge.pass_header(), target.signature) | {"address": ""},
        }

    def _idle(self, live: Live | None) -> str:
        return other(live.colour) if live else COLOURS[0]

    def _is_whole(self, colour: str) -> bool:
        return not self._down(colour)

    def _nothing_to_do(self, who: Run, live: Live) -> dict[str, Any]:
        """The release is live. Only routes that were edited, or a colour that was left over, are put right."""
        changed = []
        if not self.edge.leads_to(live):
            self.edge.switch(live)
            self._confirm(live)
            changed.append("routes written again")
        if containers([other(live.colour)]):
            stop_colour(other(live.colour))
            changed.append(f"{other(live.colour)} stopped")
        if self.records.were_live()[:1] != [live.release]:
            self.records.remember(replace(who, colour=live.colour), "live", "It was live already.")
            changed.append("history completed")
        self.records.end()
        return {"changed": bool(changed), "already": live.signature, "settled": ", ".join(changed)}

    def _gates(self, side: Side, live: Live | None, target: Live, verb: str) -> None:
        before = self._counts(live.colour) if live else watch.Seen()
        usual = self._speed_of(live)
        # A way back changes no database.
        if verb != "rollback":
            with self._step("schema"):
                self._schema(side, live, usual)
        with self._step("start"):
            side.start(self.settings.healthy_seconds)
        with self._step("smoke"):
            self._smoke(side, target, (self._speed_of(live) if usual else None) or {})
        if live:
            counted = self._counts(live.colour).since(before)
            self._note(counted=counted.plain(), start=self._counts(side.colour).plain())

    def _counts(self, colour: str) -> watch.Seen:
        return watch.look(places(colour), self.edge.ports(), edges())

    def _schema(self, side: Side, live: Live | None, usual: dict[str, float] | None) -> None:
        """Change the databases so that both releases can live with them."""
        steps = side.schema_steps()
        if steps and live and self.settings.snapshot_before_schema:
            self._snapshot(side.release)
        for service, command in steps.items():
            side.run_once(service, command, self.settings.schema_seconds)
        if live and usual and self._speed_of(live) == {}:
            raise Refused(
                f"Since the schema step of {side.release}, the live release {live.release} does not answer well. "
                "The databases are as that step left them."
            )

    def _snapshot(self, release: str) -> None:
        """Save the databases as they are before this release changes them."""
        asked = ("run", f"--reason=before the schema step of {release}", f"--tag=before-release:{release}")
        done = engine.run("berth-backup", *asked, seconds=SNAPSHOT_SECONDS)
        if done.returncode:
            raise Refused(
                f"The databases could not be saved before the schema step of {release}; nothing was changed.",
                "berth-backup",
                last_lines(done),
            )

    def _speed_of(self, live: Live | None) -> dict[str, float] | None:
        """Return how fast the live colour answers; nothing where it does not answer well, None if nobody can tell."""
        if live is None:
            return None
        visitor = Visit(**self._description(self.edge.pass_header(), live.signature))
        try:
            token = visitor.sign_in()
            return visitor.speed(token or "")
        except Busy:
            return None
        except Wrong:
            return {}
        finally:
            visitor.close()

    def _smoke(self, side: Side, target: Live, usual: dict[str, float]) -> None:
        """Use the new colour through the edge, on a route that asks for a secret, before anybody else does."""
        visitor = Visit(**self._description(self.edge.try_out(target), target.signature))
        try:
            self._await_trial(visitor)
            if not self._probe_email.exists() or visitor.sign_in() is None:
                visitor.email = self._make_probe_account(side)
            speed = visitor.everything()
        except Wrong as wrong:
            guilty = f"{side.project}-{wrong.service}-1"
            lines = logs(guilty, LAST_LINES).splitlines()
            raise Refused(f"Release {side.release} is healthy, but wrong: {wrong}", guilty, lines) from wrong
        finally:
            visitor.close()
            self.edge.end_trial()
        for path, milliseconds in speed.items():
            if path in usual and watch.is_slower(usual[path], milliseconds, self.settings):
                raise Refused(
                    f"Release {side.release} is too slow: {path} takes {milliseconds:.0f} ms, "
                    f"with the live release {usual[path]:.0f} ms."
                )
        asked = side.execute(
            "celery_worker", "python3", "-m", "celery_worker", "ask", seconds=self.settings.smoke_seconds
        )
        if asked.returncode:
            guilty = f"{side.project}-celery_worker-1"
            raise Refused(
                f"The worker of release {side.release} did not run a task to its result.", guilty, last_lines(asked)
            )

    def _await_trial(self, visitor: Visit) -> None:
        """Wait until the edge has read the trial's routes. Whatever else is wrong shows in the visit itself."""
        while True:
            try:
                visitor.ask("GET", "/")
            except Wrong:
                if visitor.seconds_left() <= self.settings.smoke_seconds / 2:
                    raise
                clock.sleep(0.2)
            else:
                return

    def _make_probe_account(self, side: Side) -> str:
        """Make the account, and return its address. What asks in between goes on with the one before."""
        email = self._email() if self._probe_email.exists() else OWN_PROBE_EMAIL.format(secrets.token_hex(8))
        document = json.dumps({"email": email, "password": self._password()})
        done = side.execute("auth_service", "python3", "-m", "auth_service.probe", seconds=30, given=document)
        if done.returncode:
            said = " ".join(last_lines(done)[-2:])
            raise Wrong(f"The probe account could not be made: {said}", "auth_service")
        files.write(self._probe_email, email, 0o600)
        return email

    # --- the switch and after ---

    def _switch(self, side: Side, live: Live | None, target: Live) -> None:
        with self._step("switch"):
            # In this order: whenever the host goes down in between, the colour that the edge leads to comes back.
            side.set_restart("unless-stopped")
            self._note(switched=clock.time())
            self.edge.switch(target)
            self._confirm(target)
            if live:
                Side(self.settings, live.release, live.colour).set_restart("no")

    def _confirm(self, live: Live) -> None:
        """Ask as everybody does, until every path is answered by this release several times in a row."""
        deadline = clock.monotonic() + self.settings.confirm_seconds
        row = 0
        while row < CONFIRMATIONS:
            # Each time on a connection of its own.
            visitor = Visit(**{**self._description(self.edge.pass_header(), live.signature), "seconds": 5})
            try:
                for path in PATHS:
                    status, _ = visitor.ask("GET", path)
                    if status >= 400:
                        raise Wrong(f"{path} gave {status}.")
            except Wrong as wrong:
                row = 0
                if clock.monotonic() > deadline:
                    raise Refused(
                        f"The edge did not show {live.signature} within {self.settings.confirm_seconds} s: {wrong}"
                    ) from wrong
                clock.sleep(0.2)
            else:
                row += 1
            finally:
                visitor.close()

    def _close(self, live: Live, addresses: list[str], by: str = "") -> None:
        """Show the maintenance page to everybody but operators; ask until the edge does so several times in a row."""
        key = self.edge.maintenance_key()
        self.edge.close(live, key or secrets.token_urlsafe(32), addresses, by)
        deadline, row = clock.monotonic() + self.settings.confirm_seconds, 0
        while row < CONFIRMATIONS:
            visitor = Visit(self.settings.domain, self.settings.address, seconds=5)
            try:
                row = row + 1 if visitor.ask("GET", "/api/users/me")[0] == 503 else 0
            except Wrong:
                row = 0
            finally:
                visitor.close()
            if row == 0:
                if clock.monotonic() > deadline:
                    if not key:
                        self.edge.open()
                    raise Refused(
                        f"The edge did not show the maintenance page within {self.settings.confirm_seconds} s, "
                        "so nothing was begun."
                    )
                clock.sleep(0.2)

    def _watch(self, who: Run) -> str:
        """Compare what the services count with what those of the old release did; hear what the controller says.

        Return what is to be remembered of it.
        """
        # A way back is not compared: the release that it leaves is what was bad.
        compared = bool(who.live) and who.verb != "rollback"
        silence, next_look = watch.Silence(), 0.0
        with self._step("watch"):
            end = clock.monotonic() + (self.settings.watch_seconds if compared else 0)
            # So long a look from outside may take, and as long again until it is under way.
            latest = clock.monotonic() + 2 * self.settings.smoke_seconds
            while True:
                objection = unit.judgement(who.id)
                if objection:
                    raise Refused(objection)
                if compared and clock.monotonic() >= next_look:
                    self._compare(who, silence)
                    # Summing up the workers' counters costs a service some milliseconds.
                    next_look = clock.monotonic() + LOOK_SECONDS
                # Who is silent at the end is waited for, or found at fault.
                if clock.monotonic() >= end and not silence.since:
                    if objection is not None:
                        return ""
                    if clock.monotonic() >= latest or not is_alive(who):
                        return "Nobody looked from outside: its controller was gone."
                clock.sleep(0.3)

    def _compare(self, who: Run, silence: watch.Silence) -> None:
        before, start = watch.Seen.read(who.counted), watch.Seen.read(who.start)
        worse, guilty = "", ""
        found = {one.name: one for one in containers([who.colour])}
        seen = self._counts(who.colour)
        if ill := next((one for one in found.values() if one.state != "healthy"), None):
            worse, guilty = f"{ill.name} is {ill.state}.", ill.name
        elif gone := next((name for name in start.began if name not in found), ""):
            worse = f"{gone} is gone."
        elif again := next((name for name, began in seen.began.items() if start.began.get(name, began) != began), ""):
            worse, guilty = f"{again} ended, and was started again.", again
        worse = worse or silence.heard({*before.services, *start.services}, seen)
        worse = worse or watch.verdict(before, seen.since(start), self.settings)
        if worse:
            lines = logs(guilty, LAST_LINES).splitlines() if guilty else []
            reason = f"Release {who.release} does worse than {who.live['release']} did: {worse}"
            raise Refused(reason, guilty, lines)

    def _retire(self, who: Run) -> None:
        """Let the old colour finish what it holds, then stop it; then forget releases that nobody goes back to."""
        with self._step("drain", needed=False):
            # Since the switch nobody new was led there.
            clock.sleep(max(0, who.switched + self.settings.drain_seconds - clock.time()))
            stop_colour(other(who.colour))
        with self._step("prune", needed=False):
            self._prune(who.release)

    def _end(self, who: Run, note: str) -> dict[str, Any]:
        """It is live and stays so."""
        self._retire(who)
        who = self.records.current() or who
        try:
            self.records.remember(who, "live", note)
        except OSError as error:
            why = stuck(self.settings, error)
            refused = Refused(f"Release {who.release} is live, but the history does not say so. {why.reason}")
            unit.tell_ended(who.id, refused)
            raise refused from error
        finally:
            self.records.end()
        answer = {"changed": True, "steps": who.steps, "seconds": round(clock.time() - who.began, 1), "note": note}
        unit.tell_ended(who.id, answer)
        return answer

    def _prune(self, live: str) -> None:
        """Remove images and folders of releases beyond those to keep.

        Failed ones keep their logs, and their images, until as many others have failed.
        """
        were_live = list(dict.fromkeys([live, *self.records.were_live()]))
        folders = [folder for folder in self.settings.releases.iterdir() if folder.is_dir()]
        failed = sorted(
            (folder for folder in folders if folder.name not in were_live), key=lambda folder: folder.stat().st_mtime
        )
        beyond = set(were_live[self.settings.keep :])
        for folder in [*failed[: -self.settings.keep], *(folder for folder in folders if folder.name in beyond)]:
            # Those that are gone already are no reason to stop.
            engine.run("docker", "image", "rm", *Side(self.settings, folder.name, COLOURS[0]).images)
            shutil.rmtree(folder)

    # --- the way back ---

    @contextmanager
    def _or_undo(self, who: Run) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            self._undo(self.records.current() or who, refused)
            raise
        except OSError as error:
            why = stuck(self.settings, error)
            self._undo(self.records.current() or who, why)
            raise why from error

    def _undo(self, who: Run, refused: Refused, result: str = "failed") -> None:
        """Put the old colour back if it is not live, keep the new one's logs, stop it, and say so in the history."""
        self.edge.end_trial()
        if who.colour:
            side = Side(self.settings, who.release, who.colour)
            with suppress(OSError):
                side.keep_logs(self.settings.folder(who.release) / now().replace(":", ""))
            live = self.edge.live()
            # It starts on the idle colour, so if the edge leads there, the switch has been.
            if live and live.colour == who.colour:
                self._lead_back(who)
            else:
                discard(who.colour)
            stop_colour(who.colour)
        # Not even a full disk keeps us from ending in good order.
        with suppress(OSError):
            self.records.remember(self.records.current() or who, result, refused.reason)
        self.records.end()
        unit.tell_ended(who.id, refused)

    def _lead_back(self, who: Run) -> None:
        if not who.live:
            self.edge.lead_nowhere()
            return
        old = Live(**who.live)
        side = Side(self.settings, old.release, old.colour)
        if not self._is_whole(old.colour):
            side.start(self.settings.healthy_seconds)
        side.set_restart("unless-stopped")
        self.edge.switch_back(old)
        self._confirm(old)

    def _free(self, break_lock: bool) -> str:
        """See to what somebody else left half done. Return what was done about it."""
        who = self.records.current()
        if who is None:
            return ""
        if self._is_waited_for(who) and not break_lock:
            raise Refused(
                f"{self.records.describe(who)} and is still connected. Wait; or, if that run is known to be dead, "
                "take its lock with -e release_break_lock=true."
            )
        try:
            return self._settle(who)
        except Refused as refused:
            if who.verb in RELEASES or not break_lock:
                raise
            # Whoever breaks the lock of another verb knows better.
            self.records.end()
            return f"given up: {self.records.describe(who)}. {refused.reason}"

    def _is_waited_for(self, who: Run) -> bool:
        """Tell whether it is the controller's turn. From its first step on, a release is the program's."""
        return who.phase == "begun" and is_alive(who)

    def _settle(self, who: Run) -> str:
        """Finish or undo what was cut off. Return which."""
        if who.verb == RESTORE:
            return self._settle_restore()
        if who.verb not in RELEASES:
            return self.settle_other(who)
        said, cut = self.records.describe(who), f"It was interrupted (phase: {who.phase})"
        live = self.edge.live()
        if live is None or not who.colour or live.colour != who.colour:
            self._undo(who, Refused(f"{cut}."), "undone")
            return f"undone: {said}"
        restarted = who.boot != boot()
        if restarted:
            # The containers may be starting still.
            self._await_whole(live.colour)
        visitor = Visit(**self._description(self.edge.pass_header(), live.signature))
        try:
            self._confirm(live)
            with suppress(Busy):
                visitor.everything()
            if restarted:
                # Services count from zero again, and that nobody answered while the host started is not their fault.
                who = self.records.save(who, start=self._counts(who.colour).plain())
            self._watch(who)
        except (Refused, Wrong) as wrong:
            self._undo(who, Refused(f"{cut}, and then: {wrong}"), "undone")
            return f"undone: {said}"
        finally:
            visitor.close()
        Side(self.settings, live.release, live.colour).set_restart("unless-stopped")
        self._end(who, f"{cut}, and finished afterwards.")
        return f"finished: {said}"

    def settle_other(self, who: Run) -> str:
        """Settle a verb that is no release."""
        raise Refused(f"{self.records.describe(who)}; this program does not know that verb: run site.yml, then again.")

    def _settle_restore(self) -> str:
        done = engine.run("berth-backup", "settle", "--guarded", seconds=SNAPSHOT_SECONDS)
        answer = json.loads(done.stdout or "{}")
        if done.returncode:
            raise Refused(
                f"A restore was cut off and could not be settled: {answer.get('reason', 'berth-backup failed')} "
                "Or give it up: -e release_break_lock=true",
                "berth-backup",
                answer.get("lines", []),
            )
        return str(answer["settled"])

    def _await_whole(self, colour: str) -> None:
        deadline = clock.monotonic() + self.settings.healthy_seconds
        while not self._is_whole(colour) and clock.monotonic() < deadline:
            clock.sleep(0.5)

    def _outcome(self, run_id: str) -> dict[str, Any]:
        """Follow a run to its end. If its program was ended in the middle, see to that here."""
        with self.records.guarded(wait=True):
            who = self.records.current()
            if who and who.id == run_id:
                self._settle(who)
        if (answer := unit.ended(run_id)) is None:
            raise Refused(f"This run has lost its lock. {self.records.describe(self.records.current())}.")
        return answer

    # --- small things ---

    def _mine(self, run_id: str) -> Run:
        who = self.records.current()
        if who is None or who.id != run_id:
            raise Refused(f"This run has lost its lock. {self.records.describe(who)}.")
        return who

    def _note(self, **changes: Any) -> None:
        """Write it down for whoever has to take over."""
        if who := self.records.current():
            self.records.save(who, **changes)

    @contextmanager
    def _step(self, name: str, needed: bool = True) -> Iterator[None]:
        """Write down where we are, and afterwards how long it took."""
        with suppress(*(() if needed else (OSError,))):
            self._note(phase=name)
        began = clock.monotonic()
        try:
            yield
        finally:
            with suppress(OSError):
                if who := self.records.current():
                    self.records.save(who, steps={**who.steps, name: round(clock.monotonic() - began, 1)})

    def _previous(self) -> str:
        """Return the release that was live before this one."""
        live = self.edge.live()
        marked = self.records.rolled_back()
        for release in self.records.were_live():
            if (live is None or release != live.release) and release not in marked:
                return release
        raise Refused("There is no earlier release to go back to. Name one: -e to=<version>")

    def _description(self, headers: dict[str, str], release: str) -> dict[str, Any]:
        """Describe a visit by the probe account, over the published port."""
        return {
            "domain": self.settings.domain,
            "address": self.settings.address,
            "headers": headers | self.edge.release_header(),
            "email": self._email(),
            "password": self._password(),
            "release": release,
            "seconds": self.settings.smoke_seconds,
        }

    @property
    def _probe_email(self) -> Path:
        return self.settings.releases / "probe_email"

    def _email(self) -> str:
        return self._probe_email.read_text() if self._probe_email.exists() else PROBE_EMAIL

    def _password(self) -> str:
        """The probe account's, made here: nobody but this host needs it, and a lost one is replaced."""
        place = self.settings.releases / "probe"
        if not place.exists():
            files.write(place, secrets.token_urlsafe(32), 0o600)
        return place.read_text()
