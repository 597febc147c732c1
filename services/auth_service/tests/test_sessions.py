import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import pytest
from httpx2 import Response

from auth_service.limits import digest
from auth_service.sessions import _bare_successor
from auth_service.tests.conftest import ADA, KEY, PASSWORD, Person, bearer


@pytest.fixture
def member(person: Person) -> Person:
    person.sign_up()
    return person


def test_signing_in_gives_an_access_token_and_a_cookie_that_scripts_cannot_read(member: Person) -> None:
    answer = member.sign_in()
    assert answer.status_code == 200
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("bearer", 900)
    assert member.me(body["access_token"]).json()["email"] == "ada@example.com"
    cookies = SimpleCookie("; ".join(answer.headers.get_list("set-cookie")))
    # The second is for the release before.
    assert list(cookies) == ["__Host-refresh_token", "refresh_token"]
    for cookie, path in zip(cookies.values(), ("/", "/api/auth"), strict=True):
        assert cookie["httponly"]
        assert cookie["secure"]
        assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("strict", path, "")


def test_over_plain_http_the_cookie_has_the_old_name_alone(member: Person) -> None:
    member.settings.public_url = "http://localhost:5173"
    assert "__Host-" not in "".join(member.sign_in().headers.get_list("set-cookie"))


def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(member: Person) -> None:
    wrong = member.sign_in("wrong")
    unknown = member.sign_in(email="nobody@example.com")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["code"] == "credentials_invalid"
    assert wrong.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


def test_an_unverified_address_looks_like_an_unknown_one_to_whoever_has_its_password(person: Person) -> None:
    """That may be a stranger who made the registration, to learn whether the address had an account."""
    person.register()
    unverified, unknown = person.sign_in(), person.sign_in(email="nobody@example.com")
    assert unverified.status_code == unknown.status_code == 401
    assert unverified.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert "open the link in our mail" in unverified.json()["detail"]
    # Counted alike, too.
    assert sorted(n for key, (n, _) in person.counters.counts.items() if key.startswith("signin:")) == [1, 1]


def test_refreshing_gives_a_new_cookie_and_a_working_token(member: Person) -> None:
    member.sign_in()
    old = member.cookie
    answer = member.post("refresh")
    assert answer.status_code == 200
    assert member.cookie != old
    assert member.me(answer.json()["access_token"]).status_code == 200


def test_two_tabs_may_refresh_at_the_same_time(member: Person) -> None:
    member.sign_in()
    old = member.cookie
    assert member.post("refresh").status_code == 200
    first = member.cookie
    member.cookie = old
    assert member.post("refresh").status_code == 200
    assert member.cookie == first
    assert member.post("refresh").status_code == 200


def test_a_stolen_refresh_token_ends_the_session_for_thief_and_owner(member: Person) -> None:
    access_token = member.sign_in().json()["access_token"]
    old = member.cookie
    member.post("refresh")
    current = member.cookie
    [session] = member.store.sessions.values()
    member.store.sessions[session.id] = replace(session, rotated_at=session.rotated_at - timedelta(seconds=11))

    member.cookie = old
    reused = member.post("refresh")
    assert reused.status_code == 401
    assert reused.json()["code"] == "session_revoked"
    member.cookie = current
    assert member.post("refresh").status_code == 401
    assert member.me(access_token).json()["code"] == "session_revoked"


def test_the_store_cannot_be_read_for_refresh_tokens(member: Person) -> None:
    member.sign_in()
    assert member.cookie.partition(".")[2] not in repr(member.store.__dict__)


def test_a_session_does_not_end_for_whoever_knows_its_name_alone(member: Person) -> None:
    """The session's id stands in every access token."""
    access_token = member.sign_in().json()["access_token"]
    mine = member.cookie
    session_id = mine.partition(".")[0]
    for made_up in (session_id, f"{session_id}.garbage", f"{session_id}.garbage.garbage", f"{mine[:-4]}AAAA"):
        for path in ("refresh", "logout"):
            member.cookie = made_up
            member.post(path)
    assert member.me(access_token).status_code == 200
    member.cookie = mine
    assert member.post("refresh").status_code == 200


def test_an_older_token_that_comes_back_ends_the_session_however_old(member: Person) -> None:
    member.sign_in()
    oldest = member.cookie
    for _ in range(3):
        member.post("refresh")
    current = member.cookie
    member.cookie = oldest
    assert member.post("refresh").status_code == 401
    member.cookie = current
    assert member.post("refresh").status_code == 401


def as_the_release_before_made_it(member: Person) -> str:
    """Swap the session's token for one without a mark."""
    [session] = member.store.sessions.values()
    token = f"{session.id}.unmarked"
    member.store.sessions[session.id] = replace(session, token_hash=digest(token))
    return token


def test_a_token_of_the_release_before_is_swapped_for_a_marked_one(member: Person) -> None:
    member.sign_in()
    member.cookie = as_the_release_before_made_it(member)
    assert member.post("refresh").status_code == 200
    assert member.cookie.count(".") == 2
    assert member.post("refresh").status_code == 200


def test_two_tabs_may_refresh_at_the_same_time_at_two_releases(member: Person) -> None:
    member.sign_in()
    token = member.cookie
    [session] = member.store.sessions.values()
    successor = _bare_successor(token, KEY)
    rotated = replace(session, token_hash=digest(successor), previous_hash=digest(token), rotated_at=datetime.now(UTC))
    member.store.sessions[session.id] = rotated
    assert member.post("refresh").status_code == 200
    assert member.cookie == successor


def send_cookies(member: Person, path: str, *cookies: str) -> Response:
    member.client.cookies.clear()
    return member.post(path, headers={"Cookie": "; ".join(cookies)})


def test_of_two_cookies_the_one_that_only_this_host_can_set_counts(member: Person) -> None:
    member.sign_in()
    mine = member.cookie
    member.register("eve@example.com")
    member.verify(member.queue.last_token)
    member.sign_in(email="eve@example.com")
    planted = member.cookie
    answer = send_cookies(member, "refresh", f"refresh_token={planted}", f"__Host-refresh_token={mine}")
    assert member.me(answer.json()["access_token"]).json()["email"] == "ada@example.com"
    assert send_cookies(member, "refresh", f"refresh_token={planted}", "__Host-refresh_token=x.y.z").status_code == 401


def test_two_values_under_one_name_are_no_session(member: Person) -> None:
    member.sign_in()
    mine = member.cookie
    for name in ("refresh_token", "__Host-refresh_token"):
        for other in (mine, "other"):
            answer = send_cookies(member, "refresh", f"{name}={mine}", f"{name}={other}")
            assert answer.json()["code"] == "session_revoked"
    both = (f"refresh_token={mine}", f"__Host-refresh_token={mine}", "__Host-refresh_token=other")
    assert send_cookies(member, "refresh", *both).json()["code"] == "session_revoked"
    member.cookie = mine
    assert member.post("refresh").status_code == 200


def test_after_a_rollback_the_old_name_may_hold_the_newer_token_of_the_same_session(member: Person) -> None:
    member.sign_in()
    stale = member.cookie
    newer = as_the_release_before_made_it(member)
    answer = send_cookies(member, "refresh", f"__Host-refresh_token={stale}", f"refresh_token={newer}")
    assert answer.status_code == 200
    assert member.post("refresh").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "https://sub.berth.test"},
        {"Origin": "http://berth.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["login", "refresh", "logout", "password/change"])
def test_a_page_of_another_site_cannot_use_the_session(member: Person, path: str, headers: dict[str, str]) -> None:
    token = member.sign_in().json()["access_token"]
    before = member.cookie
    bodies = {
        "login": {"email": ADA, "password": PASSWORD},
        "password/change": {"current": PASSWORD, "new": "another long password"},
    }
    answer = member.post(path, bodies.get(path), headers={**headers, **bearer(token)})
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    assert member.cookie == before
    own = {"Origin": "https://berth.test", "Sec-Fetch-Site": "same-origin"}
    assert member.post("refresh", headers=own).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_what_a_form_of_another_site_can_send_is_not_read_as_json(member: Person, kind: str | None) -> None:
    body = json.dumps({"email": ADA, "password": PASSWORD})
    answer = member.client.post("/api/auth/login", content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("cookie", [None, "x", "a.b", "." * 50, "\u00e9.b"])
def test_refreshing_without_a_session_is_refused(person: Person, cookie: str | None) -> None:
    headers = {"Cookie": f"refresh_token={cookie}".encode()} if cookie else {}
    answer = person.post("refresh", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["code"] == "session_revoked"


def test_signing_out_ends_the_session_at_once_and_clears_the_cookie(member: Person) -> None:
    access_token = member.sign_in().json()["access_token"]
    cookie = member.cookie
    answer = member.post("logout")
    assert answer.status_code == 204
    cleared = answer.headers.get_list("set-cookie")
    assert [line.partition(";")[0] for line in cleared] == ['__Host-refresh_token=""', 'refresh_token=""']
    assert member.me(access_token).status_code == 401
    member.cookie = cookie
    assert member.post("refresh").status_code == 401


def test_signing_out_twice_is_no_error(person: Person) -> None:
    assert person.post("logout").status_code == 204


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "\u00ff"])
def test_what_is_no_access_token_is_refused(person: Person, token: str) -> None:
    headers = [(b"Authorization", f"Bearer {token}".encode("latin-1"))]
    answer = person.client.get("/api/auth/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
