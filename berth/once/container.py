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
from berth.stack.kept import compose

SHELL = ("sh",)


@dataclass(frozen=True)
class Once:
    host: Host

    def run(self, service: str, command: list[str], by: str, seconds: int) -> int:
        """Run a command and pass on its output. Return its exit status; LATE where it was stopped.

        Raises Refused where it is not run.
        """
        if not command:
            raise Refused("Give a command: sudo berth run --service NAME -- COMMAND")

        def attached(words: list[str], environment: dict[str, str], name: str) -> int:
            return commands.pass_on(*words, seconds=seconds, late=lambda: remove(name), **environment)

        return self._beside(service, command, by, attached, "--no-TTY")

    def console(self, service: str, command: list[str], by: str) -> int:
        """Give the terminal to a shell, or to a command. Return its exit status. Raises Refused where it is not run."""

        def attached(words: list[str], environment: dict[str, str], _name: str) -> int:
            return commands.give_terminal(*words, **environment)

        return self._beside(service, command or [*SHELL], by, attached)

    def _beside(
        self,
        service: str,
        command: list[str],
        by: str,
        attached: Callable[[list[str], dict[str, str], str], int],
        *options: str,
    ) -> int:
        with self._data_stays():
            live, service = self._chosen(service)
            side = Side.on(self.host.settings, live)
            name = f"{COMMANDS}-{service}-{uuid.uuid4().hex[:8]}"
            words = compose(self.host.settings.root, side.kept.compose_file, COMMANDS, progress="quiet")
            words += ["run", "--rm", "--no-deps", *options, f"--name={name}", f"--label=berth.by={by}"]
            words += [f"--entrypoint={command[0]}", service, *command[1:]]
            about = f"{shlex.join(command)} in {service} of release {live.release} ({live.colour})"
            note(f"{by} runs {about}, container {name}")
            began, code = clock.monotonic(), "an error"
            try:
                status = attached(words, {**side.kept.environment, "COLOUR": live.colour}, name)
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
                raise Refused(f"{describe(run)}, which replaces data. Wait until it is done: sudo berth status")
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


def remove(name: str) -> None:
    commands.run("docker", "rm", "--force", name)


def note(sentence: str) -> None:
    """Write it to the journal."""
    commands.run("systemd-cat", "--identifier=berth-run", given=f"{sentence}\n")
