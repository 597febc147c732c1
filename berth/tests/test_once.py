"""`berth run` and `berth console`: commands in containers of their own, beside the live release."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from berth.host import commands
from berth.host.commands import LATE
from berth.host.lock import Lock
from berth.once import container
from berth.once.command import NOT_RUN, main
from berth.tests.release_world import NEW, OLD, World, Worlds, ask, play, settings_of


class Engine:
    """Takes the place of what runs a command in a container."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.environment: dict[str, str] = {}
        self.notes: list[str] = []
        self.removed: list[str] = []
        self.status = 0
        self.meanwhile: Callable[[], Any] = lambda: None

    def pass_on(self, *words: str, seconds: float, late: Callable[[], None], **environment: str) -> int:
        self.seconds = seconds
        if self.status == LATE:
            late()
        return self.give_terminal(*words, **environment)

    def give_terminal(self, *words: str, **environment: str) -> int:
        self.words, self.environment = [*words], environment
        self.meanwhile()
        return self.status

    def run(self, world: World, *command: str, **words: Any) -> CompletedProcess[str]:
        if command[0] == "systemd-cat":
            self.notes.append(words["given"].strip())
        if command[:2] == ("docker", "rm"):
            self.removed.append(command[-1])
        return world.run(*command, **words)


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worlds]:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    with TemporaryDirectory() as folder:
        made = Worlds(Path(folder), monkeypatch)
        made.make()
        yield made
    for one, handler in handlers.items():
        signal.signal(one, handler)


@pytest.fixture
def engine(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    for name in ("pass_on", "give_terminal"):
        monkeypatch.setattr(commands, name, getattr(engine, name))
    monkeypatch.setattr(commands, "run", lambda *command, **words: engine.run(worlds.world, *command, **words))
    monkeypatch.setattr(container, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="0a1b2c3d4e5f")))
    return engine


def test_a_command_runs_as_a_service_of_the_live_release_in_a_project_of_its_own(
    worlds: Worlds, engine: Engine
) -> None:
    engine.status = 7
    assert main(["run", "--service=auth_service", "--by=ada@laptop", "--", "python3", "-m", "x", "--flag", "a b"]) == 7
    at = engine.words.index("run")
    assert engine.words[at:] == [
        *("run", "--rm", "--no-deps", "--no-TTY", "--name=berth-run-auth_service-0a1b2c3d"),
        *("--label=berth.by=ada@laptop", "--entrypoint=python3", "auth_service", "-m", "x", "--flag", "a b"),
    ]
    assert "--project-name=berth-run" in engine.words
    assert f"--file={worlds.root}/releases/{OLD}/docker-compose.prod.yml" in engine.words
    assert (engine.environment["RELEASE"], engine.environment["COLOUR"]) == (OLD, "blue")
    # Docker removes none by itself that it would restart.
    assert engine.environment["RESTART_POLICY"] == "no"
    assert engine.seconds == 3600
    about = "python3 -m x --flag 'a b' in auth_service of release 1.0 (blue)"
    assert engine.notes == [
        f"ada@laptop runs {about}, container berth-run-auth_service-0a1b2c3d",
        f"ada@laptop ran {about}: it ended with 7 after 0.0 s",
    ]


def test_a_command_that_takes_too_long_is_removed_and_that_is_said(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.status = LATE
    assert main(["run", "--service=auth_service", "--seconds=5", "--", "sleep", "60"]) == LATE
    assert engine.removed[0] == "berth-run-auth_service-0a1b2c3d"
    assert capsys.readouterr().err == "It was stopped: it did not end within 5 s.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--service=auth", "--", "id"], "There is no service auth; release 1.0 has auth_service, beat, "),
        (["--", "id"], "Name a service; release 1.0 has auth_service, beat, celery_worker, frontend, user_service."),
        (["--service=auth_service"], "Give a command: sudo berth run --service NAME -- COMMAND"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(
    engine: Engine, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["run", *words]) == NOT_RUN
    assert capsys.readouterr().err.startswith(sentence)
    assert engine.words == engine.notes == []


def test_without_a_live_release_nothing_is_run(
    worlds: Worlds, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    worlds.make(live=False)
    assert main(["run", "--service=auth_service", "--", "id"]) == NOT_RUN
    assert capsys.readouterr().err == "No release is live, so there is no service to run it in.\n"
    assert engine.words == []


@pytest.mark.parametrize("verb", ["restore", "upgrade"])
@pytest.mark.usefixtures("engine")
def test_nothing_is_run_while_data_is_replaced_and_its_holder_is_named(
    worlds: Worlds, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    Lock(settings_of(worlds.root).releases).begin(verb, "everything", "eve@laptop", phase="filling")
    assert main(["run", "--service=auth_service", "--", "id"]) == NOT_RUN
    said = capsys.readouterr().err
    assert said.startswith(f"eve@laptop has been running {verb} everything since ")
    assert said.endswith("which replaces data. Wait until it is done: sudo berth status\n")


def test_a_release_meanwhile_leaves_the_container_alone(worlds: Worlds, engine: Engine) -> None:
    engine.meanwhile = play
    assert main(["run", "--service=auth_service", "--", "id"]) == 0
    assert worlds.world.live
    assert worlds.world.live.release == NEW
    # Only by who started it, at its end; and the old colour was stopped by the name of its project.
    assert engine.removed.count("berth-run-auth_service-0a1b2c3d") == 1
    assert {one.colour for one in worlds.world.containers.values()} == {"green"}


def test_of_a_single_service_the_name_is_not_needed(worlds: Worlds, engine: Engine) -> None:
    text = "services:\n  app:\n    profiles: [release]\n    image: x/app:${RELEASE}\n"
    worlds.keep(OLD, text)
    assert main(["run", "--", "id"]) == 0
    assert engine.words[-2:] == ["--entrypoint=id", "app"]


def test_a_console_gets_the_terminal_and_a_shell(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert main(["console", "user_service"]) == 0
    assert "--no-TTY" not in engine.words
    assert engine.words[-2:] == ["--entrypoint=sh", "user_service"]
    assert main(["console", "user_service", "python3", "-q"]) == 0
    assert engine.words[-3:] == ["--entrypoint=python3", "user_service", "-q"]
    assert len(engine.removed) == 2


def test_a_console_without_a_terminal_says_what_to_use(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert main(["console", "user_service"]) == NOT_RUN
    assert "sudo berth run" in capsys.readouterr().err
    assert engine.words == []


def test_output_is_passed_on_as_it_is_and_a_late_command_is_ended(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> None:
        raise AssertionError

    script = r"printf 'a\377'; echo oops >&2; exit 3"
    assert commands.pass_on("sh", "-c", script, seconds=10, late=never) == 3
    assert capfdbinary.readouterr() == (b"a\xff", b"oops\n")
    monkeypatch.setattr(commands, "ENDING_SECONDS", 0.1)
    ended: list[str] = []
    assert commands.pass_on("sleep", "60", seconds=0.2, late=lambda: ended.append("late")) == LATE
    assert ended == ["late"]


def test_who_asks_for_the_status_meanwhile_is_answered(engine: Engine) -> None:
    answers: list[dict[str, Any]] = []
    engine.meanwhile = lambda: answers.append(ask("maintenance", "off"))
    assert main(["run", "--service=auth_service", "--", "id"]) == 0
    assert answers == [{"changed": False}]
