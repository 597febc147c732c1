"""Programs of the owner that run before and after a verb: <root>/hooks/before-release, after-release and so on.

Each runs in a systemd unit of its own, so that its rights do not depend on its caller: some callers are sandboxed.
Units named berth-... mail their failure; that of a hook is told by its caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from berth.host import commands
from berth.host.commands import LATE, last_lines
from berth.host.refused import Refused

VERBS = ("release", "rollback", "backup", "restore")
BEFORE, AFTER = "before", "after"
# What a hook is told besides its own name and the verb.
FACTS = ("domain", "by", "run", "release", "previous", "colour", "result", "reason")
# How it ended, for the hook after it: done; failed, which changed nothing that was not undone; interrupted and undone.
DONE, FAILED, UNDONE = "done", "failed", "undone"
# A hook that does not end with SIGTERM is killed after so many seconds; so much longer takes a host under load.
KILL_SECONDS, SPARE_SECONDS = 5, 30
LONGEST_VALUE = 2000


@dataclass(frozen=True)
class Hooks:
    folder: Path
    seconds: int

    def has(self, when: str, verb: str) -> bool:
        return verb in VERBS and (self.folder / f"{when}-{verb}").exists()

    def before(self, verb: str, **facts: str) -> None:
        """Run the hook before a verb, if there is one. Raises Refused where it fails."""
        if self.has(BEFORE, verb) and (problem := self._run(BEFORE, verb, facts)):
            raise Refused(f"{problem[0]} Nothing was changed.", f"{BEFORE}-{verb}", problem)

    def after(self, verb: str, **facts: str) -> str:
        """Run the hook after a verb, if there is one. Return what is said of its failure; empty where there is none."""
        problem = self._run(AFTER, verb, facts) if self.has(AFTER, verb) else []
        return problem[0] if problem else ""

    def _run(self, when: str, verb: str, facts: dict[str, str]) -> list[str]:
        """Return a sentence about its failure and its last lines; nothing where it succeeded."""
        name = f"{when}-{verb}"
        # What a killed program has left running.
        commands.run("systemctl", "stop", *(f"hook-{one}-{verb}.service" for one in (BEFORE, AFTER)))
        given = {"hook": name, "verb": verb, **{fact: facts.get(fact, "") for fact in FACTS}}
        # One line each: a reason may quote several.
        told = {f"BERTH_{fact.upper()}": " ".join(value.split())[:LONGEST_VALUE] for fact, value in given.items()}
        done = commands.run(
            *("systemd-run", "--quiet", "--wait", "--collect", "--pipe", f"--unit=hook-{name}"),
            *(f"--setenv={variable}={value}" for variable, value in {"HOME": "/root", **told}.items()),
            *("timeout", f"--kill-after={KILL_SECONDS}", str(self.seconds), str(self.folder / name)),
            seconds=self.seconds + KILL_SECONDS + SPARE_SECONDS,
        )
        lines = last_lines(done)
        how = f"did not end within {self.seconds} s" if done.returncode == LATE else f"ended with {done.returncode}"
        sentence = f"Hook {name} {how}{f': {lines[-1]}' if lines else ''}"
        sentence += "" if sentence.endswith(".") else "."
        commands.run("systemd-cat", f"--identifier=berth-hook-{name}", given="\n".join([*lines, sentence]) + "\n")
        return [sentence, *lines] if done.returncode else []
