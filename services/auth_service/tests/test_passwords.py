"""Forgotten and changed passwords, and which new ones are refused."""

import itertools
import secrets
import string
from datetime import UTC, datetime, timedelta

import pytest

from auth_service.limits import digest
from auth_service.password_policy import password_problem
from auth_service.store import Reset
from auth_service.tests.conftest import ADA, PASSWORD, Person, bearer

NEW = "another long password"


@pytest.fixture
def member(person: Person) -> Person:
    person.sign_up()
    return person


def kinds(person: Person) -> list[str]:
    return [mail["kind"] for mail in person.queue.to(ADA) if mail["task"] == "mail.send_notice"]


def ask_for_link(person: Person) -> str:
    assert person.post("password/forgotten", {"email": ADA}).status_code == 202
    return person.queue.last_token


def test_a_forgotten_password_is_replaced_by_mail(member: Person) -> None:
    token = ask_for_link(member)
    assert member.queue.sent[-1]["link"].startswith("https://berth.test/reset#token=")
    assert member.queue.sent[-1]["expires"] == 3600
    answer = member.post("password/reset", {"token": token, "password": NEW})
    assert (answer.status_code, answer.json()) == (200, {"email": ADA, "verified": True})
    assert member.sign_in().status_code == 401
    assert member.sign_in(NEW).status_code == 200
    assert kinds(member) == ["reset", "password_changed"]


def test_a_reset_ends_every_session_and_every_other_link(member: Person) -> None:
    access_token = member.sign_in().json()["access_token"]
    cookie = member.cookie
    other = ask_for_link(member)
    member.counters.let_pass(61)
    assert member.post("password/reset", {"token": ask_for_link(member), "password": NEW}).status_code == 200
    assert member.me(access_token).json()["code"] == "session_revoked"
    member.cookie = cookie
    assert member.post("refresh").status_code == 401
    assert member.post("password/reset", {"token": other, "password": NEW}).json()["code"] == "token_invalid"
    assert not member.store.verifications


def test_a_link_to_a_new_password_works_once(member: Person) -> None:
    chosen = {"token": ask_for_link(member), "password": NEW}
    assert member.post("password/reset", chosen).status_code == 200
    again = member.post("password/reset", chosen)
    assert (again.status_code, again.json()["code"]) == (400, "token_invalid")


def test_a_link_to_a_new_password_runs_out(member: Person) -> None:
    [user] = member.store.users
    member.store.resets[digest("old")] = Reset(digest("old"), user, datetime.now(UTC) - timedelta(seconds=1))
    assert member.post("password/reset", {"token": "old", "password": NEW}).json()["code"] == "token_invalid"


def test_a_refused_password_does_not_use_up_the_link(member: Person) -> None:
    token = ask_for_link(member)
    refused = member.post("password/reset", {"token": token, "password": "ada@example.com!"})
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == ["password"]
    assert member.post("password/reset", {"token": token, "password": NEW}).status_code == 200


def test_the_store_cannot_be_read_for_links_to_a_new_password(member: Person) -> None:
    assert ask_for_link(member) not in repr(member.store.__dict__)


def test_a_forgotten_password_does_not_tell_who_has_an_account(member: Person) -> None:
    known = member.post("password/forgotten", {"email": ADA})
    unknown = member.post("password/forgotten", {"email": "bob@example.com"})
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert not member.queue.to("bob@example.com")


def test_whose_address_a_stranger_registered_first_gets_in_by_mail(person: Person) -> None:
    person.register(ADA, "a password of the attacker", "Thief")
    theirs = person.queue.last_token
    assert person.post("password/reset", {"token": ask_for_link(person), "password": NEW}).status_code == 200
    assert person.sign_in(NEW).status_code == 200
    assert person.sign_in("a password of the attacker").status_code == 401
    assert person.verify(theirs, "a password of the attacker").json()["code"] == "token_invalid"
    [user] = person.store.users.values()
    assert user.name == ""


def test_changing_the_password_ends_every_other_session_and_tells_the_owner(member: Person) -> None:
    elsewhere = member.sign_in().json()["access_token"]
    stolen = member.cookie
    here = member.sign_in().json()["access_token"]
    cookie = member.cookie
    ask_for_link(member)
    answer = member.post("password/change", {"current": PASSWORD, "new": NEW}, headers=bearer(here))
    assert answer.status_code == 204
    assert member.me(elsewhere).status_code == 401
    assert member.me(here).status_code == 200
    member.cookie = stolen
    assert member.post("refresh").status_code == 401
    member.cookie = cookie
    assert member.post("refresh").status_code == 200
    assert member.sign_in(NEW).status_code == 200
    assert kinds(member)[-1] == "password_changed"
    assert not member.store.resets


def test_a_wrong_current_password_counts_as_a_failed_sign_in(member: Person) -> None:
    token = member.sign_in().json()["access_token"]
    for _ in range(10):
        answer = member.post("password/change", {"current": "wrong", "new": NEW}, headers=bearer(token))
        assert (answer.status_code, answer.json()["code"]) == (400, "credentials_invalid")
    answer = member.post("password/change", {"current": PASSWORD, "new": NEW}, headers=bearer(token))
    assert answer.status_code == 429
    assert member.sign_in().status_code == 429


def test_a_password_is_changed_a_few_times_a_day(member: Person) -> None:
    """Each time a mail is sent."""
    token = member.sign_in().json()["access_token"]
    passwords = [PASSWORD, *(f"another long password, number {number}" for number in range(11))]
    statuses = [
        member.post("password/change", {"current": current, "new": new}, headers=bearer(token)).status_code
        for current, new in itertools.pairwise(passwords)
    ]
    assert statuses == [204] * 10 + [429]


def test_the_password_is_changed_by_who_is_signed_in_alone(member: Person) -> None:
    answer = member.post("password/change", {"current": PASSWORD, "new": NEW})
    assert answer.status_code == 401
    assert member.sign_in().status_code == 200


def test_a_new_password_that_is_too_common_is_refused_beside_its_field(member: Person) -> None:
    token = member.sign_in().json()["access_token"]
    answer = member.post("password/change", {"current": PASSWORD, "new": "password1234"}, headers=bearer(token))
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "new"
    assert "first that are guessed" in error["message"]


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "Password123!",
        "123456789012",
        "qwertyuiop12",
        "iloveyou1234",
        "aaaaaaaaaaaa",
        "letmein12345",
        "monkeymonkey",
        "passw0rd" * 9,
        "ada@example.com",
        "my ADA@example.com is secret",
        "berthberth12",
        "berth.testberth.test",
    ],
)
def test_what_is_guessed_first_is_refused(password: str) -> None:
    assert password_problem(password, ADA, "https://berth.test")


@pytest.mark.parametrize(
    "password",
    ["correct horse battery staple", "a safe berth for tired ships", "Ada likes long walks at night", "xkqzjvwpmtbd"],
)
def test_a_passphrase_is_fine_with_words_of_the_site_in_it(password: str) -> None:
    assert not password_problem(password, ADA, "https://berth.test")


def test_random_passwords_of_twelve_characters_are_fine_whatever_they_are_made_of() -> None:
    for alphabet in (string.ascii_lowercase, string.ascii_letters + string.digits, string.printable[:94]):
        for _ in range(50):
            password = "".join(secrets.choice(alphabet) for _ in range(12))
            assert not password_problem(password, ADA, "https://berth.test"), password
