"""The check of a release finds what is wrong with the site, and holds nothing against it that others cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from threading import Thread
from typing import Any

import pytest

from auth_service import probe

PAGE = '<script type="module" src="/assets/app.js"></script>'
OVERLOADED = (503, '{"code": "overloaded"}')


class Site:
    """A site on a port, whose answers a test replaces."""

    def __init__(self) -> None:
        # Whom it knows: email and password.
        self.known: set[tuple[str, str]] = set()
        # Path -> its next answers, before the usual one.
        self.answers: dict[str, list[tuple[int, str]]] = {}
        self.release = "1.1 green"
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.port = 0

    def answer(self, path: str, body: str, bearer: str) -> tuple[int, str]:
        self.asked.append(path)
        if queued := self.answers.get(path):
            return queued.pop(0)
        if path == "/api/auth/login":
            given = json.loads(body)
            known = (given["email"], given["password"]) in self.known
            return (200, json.dumps({"access_token": given["email"]})) if known else (401, "{}")
        if path.startswith("/api/"):
            return 200, json.dumps({"email": bearer})
        return 200, PAGE


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            made.headers = dict(self.headers.items())
            status, text = made.answer(self.path, body, self.headers.get("Authorization", "").removeprefix("Bearer "))
            self.send_response(status)
            self.send_header("X-Berth-Release", made.release)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            # Who has waited long enough is gone.
            with suppress(BrokenPipeError):
                self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815  # http.server's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    monkeypatch.setattr(probe, "make", lambda email, password: made.known.add((email, password)))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_port
        Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def run(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **more: Any
) -> tuple[int, str]:
    plan: dict[str, Any] = {
        "url": "http://www.site.test",
        "address": f"127.0.0.1:{site.port}",
        "headers": {"X-Berth-Trial": "key"},
    }
    plan |= {"release": "1.1 green", "seconds": 2, "secret": "a secret", **more}
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(plan)))
    code = probe.main()
    return code, capsys.readouterr().out.strip()


def test_a_good_site_is_used_and_timed_by_an_account_of_its_own(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(site, monkeypatch, capsys)
    assert (code, set(json.loads(said)["milliseconds"])) == (0, {"/api/auth/me", "/api/users/me", "/"})
    assert (site.headers["Host"], site.headers["X-Berth-Trial"]) == ("www.site.test", "key")
    [(email, password)] = site.known
    assert email.startswith("release-probe-")
    assert email.endswith("@berth.invalid")
    assert probe.account_of("a secret") == (email, password)
    assert not {email, password} & set(probe.account_of("another secret"))
    # Who is known is not made again, and signs out.
    monkeypatch.setattr(probe, "make", lambda *_: pytest.fail("made again"))
    assert run(site, monkeypatch, capsys)[0] == 0
    assert site.asked[-1] == "/api/auth/logout"


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"/api/auth/login": [(500, "broken")]}, "Signing in returned 500: 'broken'"),
        ({"/api/auth/login": [(401, ""), (403, "")]}, "The probe account cannot sign in."),
        ({"/api/users/me": [(200, "{}")]}, "The probe account is not recognised: /api/users/me returned 200, '{}'"),
        ({"/": [(200, "<html>")]}, "The front page references no script: / returned 200, '<html>'"),
        ({"/assets/app.js": [(404, "")]}, "The front page references /assets/app.js, which returned 404 and 0 bytes."),
        ({"/api/users/me": [(200, '{"email": 1}')]}, "The probe account is not recognised"),
        ({"/api/auth/me": [(502, "")]}, "The probe account is not recognised: /api/auth/me returned 502"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, list[tuple[int, str]]],
    says: str,
) -> None:
    site.answers = answers
    code, said = run(site, monkeypatch, capsys)
    assert code == 1
    assert said.startswith(says)


def test_another_release_that_answers_is_wrong(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.release = "1.0 blue"
    said = run(site, monkeypatch, capsys)[1]
    assert said == "/api/auth/login was answered by release 1.0 blue, not by 1.1 green: status 401."


def test_load_is_waited_for_and_never_held_against_the_site(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers = {"/api/auth/login": [OVERLOADED, (429, "{}")]}
    assert run(site, monkeypatch, capsys)[0] == 0
    site.answers = {"/api/auth/login": [OVERLOADED] * 100_000}
    code, said = run(site, monkeypatch, capsys, seconds=0.3)
    assert (code, json.loads(said)["milliseconds"]) == (0, {})
    assert "was refused under load until the time limit" in said


def test_on_restored_data_the_account_has_to_be_there_and_only_this_service_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = {"url": f"http://127.0.0.1:{site.port}", "address": "", "release": "", "restored": True}
    assert run(site, monkeypatch, capsys, **restored) == (1, "The probe account cannot sign in.")
    site.known.add(probe.account_of("a secret"))
    code, said = run(site, monkeypatch, capsys, **restored)
    assert (code, json.loads(said)["note"]) == (0, f"signed in as {probe.account_of('a secret')[0]}")
    assert set(site.asked) == {"/api/auth/login", "/api/auth/me", "/api/auth/logout"}


def test_the_program_of_the_release_before_still_makes_its_account(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO('{"email": "release-probe-1@berth.invalid", "password": "p"}'))
    assert (probe.main(), capsys.readouterr().out) == (0, "")
    assert site.known == {("release-probe-1@berth.invalid", "p")}
