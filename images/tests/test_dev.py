"""What `make dev` finds out before it starts anything."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import dev
from shared import keys


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("services/shared", "frontend"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "services/shared/tokens.py").touch()
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "ENV", tmp_path / ".env")
    for name in ("JWT_PRIVATE_KEY", "JWT_PUBLIC_KEYS", "JWT_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def pair(text: str) -> tuple[str, str]:
    """The keys that compose would read."""
    found = dict(re.findall(r"^(JWT_\w+)='(.*)'$", text, re.MULTILINE))
    return found["JWT_PRIVATE_KEY"], found["JWT_PUBLIC_KEYS"]


def test_an_env_with_keys_of_its_own_is_written_for_its_owner_only(checkout: Path) -> None:
    dev.settle_env()
    env = checkout / ".env"
    assert re.search("^JWT_SECRET_KEY='[0-9a-f]{64}'$", env.read_text(), re.MULTILINE)
    private, public = pair(env.read_text())
    assert keys.public_key(private) == public
    assert env.stat().st_mode & 0o777 == 0o600
    before = env.read_text()
    dev.settle_env()
    assert env.read_text() == before


@pytest.mark.parametrize("end", ["", "\n"])
def test_an_older_env_gets_the_keys_that_it_lacks_and_says_so(
    checkout: Path, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = checkout / ".env"
    text = f"TRACES_RATIO='1'\nJWT_SECRET_KEY='{'0123456789abcdef' * 2}'{end}"
    env.write_text(text)
    dev.settle_env()
    assert "added JWT_PRIVATE_KEY and JWT_PUBLIC_KEYS to .env" in capsys.readouterr().out
    assert env.read_text().startswith(text)
    private, public = pair(env.read_text())
    assert keys.public_key(private) == public
    env.write_text(f"{text}\nJWT_PRIVATE_KEY='{private}'\n")
    dev.settle_env()
    assert "added JWT_PUBLIC_KEYS to .env" in capsys.readouterr().out
    assert pair(env.read_text()) == (private, public)


@pytest.mark.parametrize(
    ("private", "said"),
    [
        ("replace-me", "JWT_PRIVATE_KEY is no EC private key on P-256. Remove the line"),
        (keys.public_key(keys.new_private_key()), "JWT_PRIVATE_KEY is no EC private key on P-256"),
        (keys.new_private_key(), "JWT_PUBLIC_KEYS lacks the public key of JWT_PRIVATE_KEY. Remove the line"),
    ],
    ids=["an example", "a public key", "somebody else's"],
)
def test_a_pair_that_is_none_is_named_with_its_remedy(checkout: Path, private: str, said: str) -> None:
    secret, public = "0123456789abcdef" * 2, keys.public_key(keys.new_private_key())
    text = f"JWT_SECRET_KEY='{secret}'\nJWT_PRIVATE_KEY='{private}'\nJWT_PUBLIC_KEYS='{public}'\n"
    (checkout / ".env").write_text(text)
    with pytest.raises(dev.DevError, match=said):
        dev.settle_env()
    assert (checkout / ".env").read_text() == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TRACES_RATIO='1'\n", "JWT_SECRET_KEY is missing"),
        ("JWT_SECRET_KEY=\n", "JWT_SECRET_KEY is missing"),
        ("JWT_SECRET_KEY='replace-me'\n", "JWT_SECRET_KEY has 10 characters, but needs at least 32"),
    ],
)
def test_an_env_that_is_there_stays_and_what_is_missing_is_named(checkout: Path, text: str, said: str) -> None:
    (checkout / ".env").write_text(text)
    with pytest.raises(dev.DevError, match=f"{said}. Write this line: JWT_SECRET_KEY='[0-9a-f]{{64}}'"):
        dev.settle_env()
    assert (checkout / ".env").read_text() == text


@pytest.mark.parametrize("form", ["JWT_SECRET_KEY={}", "export JWT_SECRET_KEY='{}'", 'A=b\nJWT_SECRET_KEY="{}"\nC=d'])
def test_a_key_that_is_there_will_do(checkout: Path, form: str) -> None:
    text = form.format("0123456789abcdef" * 2)
    (checkout / ".env").write_text(text)
    dev.settle_env()
    assert (checkout / ".env").read_text().startswith(text)


def test_sources_that_only_their_owner_can_read_are_named_with_the_remedy(checkout: Path) -> None:
    (checkout / "services/notes").touch(mode=0o600)
    dev.stop_for_unreadable_sources()
    (checkout / "services/shared/tokens.py").chmod(0o600)
    with pytest.raises(
        dev.DevError, match=r"cannot read services/shared/tokens\.py.*chmod -R go\+rX services frontend"
    ):
        dev.stop_for_unreadable_sources()
    (checkout / "services").chmod(0o700)
    with pytest.raises(dev.DevError, match="cannot read services"):
        dev.stop_for_unreadable_sources()


def test_a_port_that_is_taken_is_named_unless_it_is_our_own(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        started = {"redis": {"ports": [{"published": str(taken.getsockname()[1])}]}, "beat": {}}
        monkeypatch.setattr(dev, "owners", set)
        with pytest.raises(dev.DevError, match=f"port {taken.getsockname()[1]}"):
            dev.stop_for_others(started)
        monkeypatch.setattr(dev, "owners", lambda: {str(checkout)})
        dev.stop_for_others(started)
        monkeypatch.setattr(dev, "owners", lambda: {str(checkout), "/home/ada/berth"})
        with pytest.raises(dev.DevError, match="It is already running from /home/ada/berth"):
            dev.stop_for_others(started)


@pytest.mark.skipif(not shutil.which("docker"), reason="compose reads its own file")
def test_ports_and_addresses_are_those_of_the_compose_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JWT_PRIVATE_KEY", "JWT_PUBLIC_KEYS", "JWT_SECRET_KEY"):
        monkeypatch.setenv(name, "-")
    started = dev.services()
    assert {5173, 8001, 8002, 1080, 1025, 27017, 6379} <= {
        port for each in started.values() for port in dev.ports(each)
    }
    assert "flower" not in started, "its profile was not asked for"
    addresses = dev.descriptions(started)
    assert addresses["user_service"] == "http://localhost:8001/api/users/docs"
    assert addresses["auth_service"] == "http://localhost:8002/api/auth/docs"
