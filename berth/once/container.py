"""A container for one command: the image, user, networks, secrets and limits of a service of the live release.

It is in a compose project of its own: a release that stops the old colour meanwhile leaves it alone.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from berth.host import clock, commands
from berth.host.live import Live
from berth.host.lock import ALONE_VERBS, COMMANDS, describe
from berth.host.refused import Refused
from berth.release.engine import Side
from berth.release.host import Host
from berth.release.jobs import NAME
from berth.stack.description import JOB, PROFILE
from berth.stack.kept import compose

SHELL = ("sh",)


class Busy(Refused):
    """Data is being replaced."""


@dataclass(frozen=True)
class Once:
    host: Host

    def run(self, service: str, command: list[str], by: str, seconds: int) -> int:
        """Run a command and pass on its output. Return its exit status; LATE where it was stopped.

        Raises Refused where it is not run.
        """
        if not command:
            raise Refused("Give a command: sudo berth run --service NAME -- COMMAND")

        live, service = self._chosen(service)
        name = f"{COMMANDS}-{service}-{uuid.uuid4().hex[:8]}"
        return self._beside(live, service, command, name, by, passing_on(name, seconds), "--no-TTY")

    def job(self, service: str) -> int:
        """Run a job of the live release, as its timer asks. Return its exit status; 0 where it is skipped."""
        live = self.host.edge.live()
        known = Side.on(self.host.settings, live).kept.description.jobs if live else ()
        name = f"{NAME}{service}"
        try:
            if live is None or service not in [job.name for job in known]:
                raise Busy("the live release has no such job.")
            # Left behind by a program that was killed.
            remove(name)
            attached = passing_on(name, self.host.settings.command_seconds)
            return self._beside(live, service, [], name, "its timer", attached, "--no-TTY")
        except Busy as busy:
            note(f"Job {service} was skipped: {busy.reason}")
            return 0

    def console(self, service: str, command: list[str], by: str) -> int:
        """Give the terminal to a shell, or to a command. Return its exit status. Raises Refused where it is not run."""

        def attached(words: list[str], environment: dict[str, str]) -> int:
            return commands.give_terminal(*words, **environment)

        live, service = self._chosen(service)
        name = f"{COMMANDS}-{service}-{uuid.uuid4().hex[:8]}"
        return self._beside(live, service, command or [*SHELL], name, by, attached)

    def _beside(
        self,
        live: Live,
        service: str,
        command: list[str],
        name: str,
        by: str,
        attached: Callable[[list[str], dict[str, str]], int],
        *options: str,
    ) -> int:
        with self._data_stays():
            side = Side.on(self.host.settings, live)
            words = compose(self.host.settings.root, side.kept.compose_file, COMMANDS, progress="quiet")
            # What it depends on is not started, but has to be known.
            words += [f"--profile={PROFILE}", f"--profile={JOB}"]
            words += ["run", "--rm", "--no-deps", *options, f"--name={name}", f"--label=berth.by={by}"]
            words += [*(f"--entrypoint={one}" for one in command[:1]), service, *command[1:]]
            about = f"{shlex.join(command) or 'the job'} in {service} of release {live.release} ({live.colour})"
            note(f"{by} runs {about}, container {name}")
            began, code = clock.monotonic(), "an error"
            try:
                status = attached(words, {**side.kept.environment, "COLOUR": live.colour, "RESTART_POLICY": "no"})
                code = str(status)
            finally:
                # Where the one who was attached is gone, it goes as well.
                remove(name)
                note(f"{by} ran {about}: it ended with {code} after {clock.monotonic() - began:.1f} s")
            return status

    @contextmanager
    def _data_stays(self) -> Iterator[None]:
        """Keep out what replaces data, for the block. Raises Refused, naming it, where it is there already."""
        lock = self.host.lock
        with lock.with_command():
            run = lock.current()
            if run and run.verb in ALONE_VERBS:
                raise Busy(f"{describe(run)}, which replaces data. Wait until it is done: sudo berth status")
            yield

    def _chosen(self, service: str) -> tuple[Live, str]:
        """Return the live release and a service of it: the named one, or the only one."""
        live = self.host.edge.live()
        if live is None:
            raise Refused("No release is live, so there is no service to run it in.")
        names = Side.on(self.host.settings, live).kept.description.names
        if not service and len(names) == 1:
            return live, names[0]
        if service not in names:
            problem = f"There is no service {service}" if service else "Name a service"
            raise Refused(f"{problem}; release {live.release} has {', '.join(names)}.")
        return live, service


def passing_on(name: str, seconds: int) -> Callable[[list[str], dict[str, str]], int]:
    """Return what runs a container of that name, passing on its output, and removes it after so many seconds."""

    def attached(words: list[str], environment: dict[str, str]) -> int:
        return commands.pass_on(*words, seconds=seconds, late=lambda: remove(name), **environment)

    return attached


def remove(name: str) -> None:
    commands.run("docker", "rm", "--force", name)


def note(sentence: str) -> None:
    """Write it to the journal."""
    commands.run("systemd-cat", "--identifier=berth-run", given=f"{sentence}\n")
