from dataclasses import replace
from datetime import timedelta
from http.cookies import SimpleCookie

import pytest

from auth_service.tests.conftest import PASSWORD, Person


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
    cookie = SimpleCookie(answer.headers["set-cookie"])["refresh_token"]
    assert cookie["httponly"]
    assert cookie["secure"]
    assert (cookie["samesite"], cookie["path"]) == ("strict", "/api/auth")


def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(member: Person) -> None:
    wrong = member.sign_in("wrong")
    unknown = member.sign_in(email="nobody@example.com")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["code"] == "credentials_invalid"
    assert wrong.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


def test_an_unverified_address_cannot_sign_in(person: Person) -> None:
    person.register()
    answer = person.sign_in()
    assert answer.status_code == 403
    assert answer.json()["code"] == "email_unverified"


def test_the_eleventh_guess_has_to_wait_even_if_it_is_right(member: Person) -> None:
    for _ in range(10):
        assert member.sign_in("wrong").status_code == 401
    answer = member.sign_in(PASSWORD)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_guesses_from_one_address_do_not_lock_out_another(member: Person) -> None:
    for _ in range(10):
        # What comes before the last hop was written by the guesser.
        member.sign_in("wrong", headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.9"})
    assert member.sign_in(headers={"X-Forwarded-For": "198.51.100.7"}).status_code == 200


def test_a_good_sign_in_forgets_the_bad_ones(member: Person) -> None:
    for _ in range(9):
        member.sign_in("wrong")
    assert member.sign_in().status_code == 200
    for _ in range(9):
        assert member.sign_in("wrong").status_code == 401
    assert member.sign_in().status_code == 200


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
    assert 'refresh_token=""' in answer.headers["set-cookie"]
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
