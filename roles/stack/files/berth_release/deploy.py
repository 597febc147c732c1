"""A release, step by step. Until the switch nobody outside notices; after it, the old colour stands ready."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from berth_release import unit, watch
from berth_release.edge import Edge, Live
from berth_release.engine import (
    LAST_LINES,
    Side,
    containers,
    discard,
    edge_addresses,
    last_lines,
    logs,
    run,
    stop_colour,
)
from berth_release.probe import Visit, Wrong
from berth_release.records import Records, Run, boot, is_alive, now, write
from berth_release.settings import COLOURS, IMAGES, Refused, Settings, other, stuck

# Nobody can own an address under .invalid, so nobody else can verify this account.
PROBE_EMAIL = "release-probe@berth.invalid"
# So many rounds of answers in a row, and the edge has read the new routes.
CONFIRMATIONS = 3
SNAPSHOT_SECONDS = 3600
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

    def settle(self) -> dict[str, Any]:
        """Finish or undo what was cut off: after the program was ended, or the host has started again."""
        with self.records.guarded(wait=True):
            who = self.records.current()
            if who is None or self._is_waited_for(who):
                return {"changed": False}
            return {"changed": True, "settled": self._settle(who)}

    def maintenance(self, on: bool, addresses: list[str]) -> dict[str, Any]:
        """Close the site to everybody but operators, or open it again."""
        with self.records.guarded():
            closed = bool(self.edge.maintenance_key())
            live = self.edge.live()
            if not on:
                self.edge.open()
                if closed and live:
                    self._confirm(live)
                return {"changed": closed}
            if live is None:
                raise Refused("Nothing is live, so there is nothing to close: the edge answers 503 already.")
            same = closed and self.edge.maintenance_addresses() == addresses
            if not same:
                self._close(live, addresses)
            return {"changed": not same, "header": self.edge.pass_header(), "addresses": addresses}

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
        found = containers([colour])
        return {one.service for one in found} >= {*IMAGES, "beat"} and all(one.state == "healthy" for one in found)

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
        before = watch.count(edge_addresses(), live.colour) if live else watch.Counted()
        usual = self._speed_of(live)
        # A way back changes no database.
        if verb != "rollback":
            with self._step("schema"):
                self._schema(side, live, usual)
        with self._step("start"):
            side.start(self.settings.healthy_seconds)
        with self._step("smoke"):
            self._smoke(side, target, self._speed_of(live) if usual else {})
        if live:
            counted = watch.count(edge_addresses(), live.colour).since(before)
            self._note(counted=vars(counted), start=vars(watch.count(edge_addresses(), side.colour)))

    def _schema(self, side: Side, live: Live | None, usual: dict[str, float]) -> None:
        """Change the databases so that both releases can live with them."""
        steps = side.schema_steps()
        if steps and live and self.settings.snapshot_before_schema:
            self._snapshot(side.release)
        for service, command in steps.items():
            side.run_once(service, command, self.settings.schema_seconds)
        if live and usual and not self._speed_of(live):
            raise Refused(
                f"Since the schema step of {side.release}, the live release {live.release} does not answer well. "
                "The databases are as that step left them."
            )

    def _snapshot(self, release: str) -> None:
        """Save the databases as they are before this release changes them."""
        asked = ("run", f"--reason=before the schema step of {release}", f"--tag=before-release:{release}")
        done = run("berth-backup", *asked, seconds=SNAPSHOT_SECONDS)
        if done.returncode:
            raise Refused(
                f"The databases could not be saved before the schema step of {release}; nothing was changed.",
                "berth-backup",
                last_lines(done),
            )

    def _speed_of(self, live: Live | None) -> dict[str, float]:
        """Return how fast the live colour answers; nothing where it does not answer well."""
        if live is None:
            return {}
        visitor = Visit(**self._description(self.edge.pass_header(), live.signature))
        try:
            token = visitor.sign_in()
            return visitor.speed(token or "")
        except Wrong:
            return {}
        finally:
            visitor.close()

    def _smoke(self, side: Side, target: Live, usual: dict[str, float]) -> None:
        """Use the new colour through the edge, on a route that asks for a secret, before anybody else does."""
        visitor = Visit(**self._description(self.edge.try_out(target), target.signature))
        try:
            self._await_trial(visitor)
            if visitor.sign_in() is None:
                self._make_probe_account(side)
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
                time.sleep(0.2)
            else:
                return

    def _make_probe_account(self, side: Side) -> None:
        document = json.dumps({"email": PROBE_EMAIL, "password": self._password()})
        done = side.execute("auth_service", "python3", "-m", "auth_service.probe", seconds=30, given=document)
        if done.returncode:
            said = " ".join(last_lines(done)[-2:])
            raise Wrong(f"The probe account could not be made: {said}", "auth_service")

    # --- the switch and after ---

    def _switch(self, side: Side, live: Live | None, target: Live) -> None:
        with self._step("switch"):
            # In this order: whenever the host goes down in between, the colour that the edge leads to comes back.
            side.set_restart("unless-stopped")
            self._note(switched=time.time())
            self.edge.switch(target)
            self._confirm(target)
            if live:
                Side(self.settings, live.release, live.colour).set_restart("no")

    def _confirm(self, live: Live) -> None:
        """Ask as everybody does, until every path is answered by this release several times in a row."""
        deadline = time.monotonic() + self.settings.confirm_seconds
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
                if time.monotonic() > deadline:
                    raise Refused(
                        f"The edge did not show {live.signature} within {self.settings.confirm_seconds} s: {wrong}"
                    ) from wrong
                time.sleep(0.2)
            else:
                row += 1
            finally:
                visitor.close()

    def _close(self, live: Live, addresses: list[str]) -> None:
        """Show the maintenance page to everybody but operators; ask until the edge does so several times in a row."""
        key = self.edge.maintenance_key()
        self.edge.close(live, key or secrets.token_urlsafe(32), addresses)
        deadline, row = time.monotonic() + self.settings.confirm_seconds, 0
        while row < CONFIRMATIONS:
            visitor = Visit(self.settings.domain, self.settings.address, seconds=5)
            try:
                row = row + 1 if visitor.ask("GET", "/api/users/me")[0] == 503 else 0
            except Wrong:
                row = 0
            finally:
                visitor.close()
            if row == 0:
                if time.monotonic() > deadline:
                    if not key:
                        self.edge.open()
                    raise Refused(
                        f"The edge did not show the maintenance page within {self.settings.confirm_seconds} s, "
                        "so nothing was begun."
                    )
                time.sleep(0.2)

    def _watch(self, who: Run) -> str:
        """Compare what the edge counts with what it counted before the switch; hear what the controller says.

        Return what is to be remembered of it.
        """
        # A way back is not compared: the release that it leaves is what was bad.
        compared = bool(who.live) and who.verb != "rollback"
        addresses = edge_addresses()
        with self._step("watch"):
            end = time.monotonic() + (self.settings.watch_seconds if compared else 0)
            # So long a look from outside may take, and as long again until it is under way.
            latest = time.monotonic() + 2 * self.settings.smoke_seconds
            while True:
                objection = unit.judgement(who.id)
                if objection:
                    raise Refused(objection)
                if time.monotonic() >= end:
                    if objection is not None:
                        return ""
                    if time.monotonic() >= latest or not is_alive(who):
                        return "Nobody looked from outside: its controller was gone."
                if compared:
                    self._compare(who, addresses)
                time.sleep(0.3)

    def _compare(self, who: Run, addresses: list[str]) -> None:
        before, start = watch.Counted.read(who.counted), watch.Counted.read(who.start)
        worse = watch.verdict(before, watch.count(addresses, who.colour).since(start), self.settings)
        ill = next((one for one in containers([who.colour]) if one.state != "healthy"), None)
        if ill:
            worse = f"{ill.name} is {ill.state}."
        if worse:
            lines = logs(ill.name, LAST_LINES).splitlines() if ill else []
            reason = f"Release {who.release} does worse than {who.live['release']} did: {worse}"
            raise Refused(reason, ill.name if ill else "", lines)

    def _retire(self, who: Run) -> None:
        """Let the old colour finish what it holds, then stop it; then forget releases that nobody goes back to."""
        with self._step("drain", needed=False):
            # Since the switch nobody new was led there.
            time.sleep(max(0, who.switched + self.settings.drain_seconds - time.time()))
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
        answer = {"changed": True, "steps": who.steps, "seconds": round(time.time() - who.began, 1), "note": note}
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
            run("docker", "image", "rm", *Side(self.settings, folder.name, COLOURS[0]).images)
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
        return self._settle(who)

    def _is_waited_for(self, who: Run) -> bool:
        """Tell whether it is the controller's turn. From its first step on, a release is the program's."""
        return who.phase == "begun" and is_alive(who)

    def _settle(self, who: Run) -> str:
        """Finish or undo what was cut off. Return which."""
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
            visitor.everything()
            if restarted:
                # The edge counts from zero again, and that nobody answered while the host started is not its fault.
                who = self.records.save(who, start=vars(watch.count(edge_addresses(), who.colour)))
            self._watch(who)
        except (Refused, Wrong) as wrong:
            self._undo(who, Refused(f"{cut}, and then: {wrong}"), "undone")
            return f"undone: {said}"
        finally:
            visitor.close()
        Side(self.settings, live.release, live.colour).set_restart("unless-stopped")
        self._end(who, f"{cut}, and finished afterwards.")
        return f"finished: {said}"

    def _await_whole(self, colour: str) -> None:
        deadline = time.monotonic() + self.settings.healthy_seconds
        while not self._is_whole(colour) and time.monotonic() < deadline:
            time.sleep(0.5)

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
        began = time.monotonic()
        try:
            yield
        finally:
            with suppress(OSError):
                if who := self.records.current():
                    self.records.save(who, steps={**who.steps, name: round(time.monotonic() - began, 1)})

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
            "headers": headers,
            "email": PROBE_EMAIL,
            "password": self._password(),
            "release": release,
            "seconds": self.settings.smoke_seconds,
        }

    def _password(self) -> str:
        """The probe account's, made here: nobody but this host needs it, and a lost one is replaced."""
        place = self.settings.releases / "probe"
        if not place.exists():
            write(place, secrets.token_urlsafe(32), 0o600)
        return place.read_text()
