"""Sign-up, verification, and what strangers can do with an address that is not theirs."""

import asyncio
import inspect
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from auth_service.later import FAILURES, OVERLOADS
from auth_service.limits import digest
from auth_service.store import User, Verification
from auth_service.tests.conftest import ADA, PASSWORD, Person, coming_from
from shared.security import Passwords

THIEF = "a password of the attacker"


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def mail_pause_passes(person: Person) -> None:
    person.counters.let_pass(person.settings.mail_pause_seconds)


def test_a_known_and_an_unknown_address_get_the_same_answer(person: Person) -> None:
    person.sign_up()
    known, unknown = person.register(ADA), person.register("bob@example.com")
    assert known.status_code == unknown.status_code == 202
    assert known.json() == {"status": "accepted", "email": ADA}
    assert unknown.json() == {"status": "accepted", "email": "bob@example.com"}
    assert len(known.content.replace(ADA.encode(), b"")) == len(unknown.content.replace(b"bob@example.com", b""))


@pytest.mark.parametrize("path", ["register", "verification", "password/forgotten"])
def test_before_the_answer_nothing_is_asked_about_the_address(
    person: Person, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Work is counted instead of milliseconds: what is done before the answer leaves is the same for every address."""
    person.sign_up()
    for part in (person.store, person.counters, person.queue, person.passwords):
        for name, method in inspect.getmembers(part, inspect.iscoroutinefunction):

            def noted(*args: object, _method: Any = method, _name: str = name, **kwargs: object) -> object:
                person.journal.lines.append(_name)
                return _method(*args, **kwargs)

            monkeypatch.setattr(part, name, noted)

    def work_before_and_after(email: str) -> tuple[list[str], list[str]]:
        person.journal.lines.clear()
        body = {"email": email, **({"password": PASSWORD} if path == "register" else {})}
        assert person.post(path, body).status_code == 202
        answered = person.journal.lines.index("answer")
        return person.journal.lines[:answered], person.journal.lines[answered:]

    known, unknown = work_before_and_after(ADA), work_before_and_after("bob@example.com")
    assert known[0] == unknown[0]
    assert not {"user_by_email", "place_user", "hash", "hash_later", "send"} & set(known[0])
    # And afterwards as many hashes, or other answers, that come later for them, would tell.
    assert known[1].count("hash_later") == unknown[1].count("hash_later") == (path == "register")


def test_the_owner_of_a_known_address_is_told_of_a_sign_up_and_nothing_changes(person: Person) -> None:
    person.sign_up()
    before = dict(person.store.users)
    person.register(ADA, THIEF, "Thief")
    mail = person.queue.to(ADA)[-1]
    assert (mail["task"], mail["kind"]) == ("mail.send_notice", "already_registered")
    assert person.store.users == before
    assert person.sign_in(THIEF).status_code == 401
    assert person.sign_in().status_code == 200


def test_the_link_in_the_mail_leads_to_the_public_address(person: Person) -> None:
    person.register("Ada@Example.COM")
    [mail] = person.queue.sent
    assert mail["task"] == "mail.send_verification"
    assert mail["email"] == ADA
    assert mail["link"].startswith("https://berth.test/verify#token=")


def test_the_password_is_not_stored(person: Person) -> None:
    person.passwords._hasher = Passwords()._hasher
    person.register()
    [user] = person.store.users.values()
    assert user.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PASSWORD not in repr(person.store.__dict__)


def test_a_link_verifies_with_the_password_of_its_sign_up_and_may_be_opened_twice(person: Person) -> None:
    person.register()
    token = person.queue.last_token
    for _ in range(2):
        answer = person.verify(token)
        assert answer.status_code == 200
        assert answer.json() == {"email": ADA, "verified": True}
    assert person.verify(token, THIEF).json()["code"] == "credentials_invalid"
    assert person.sign_in().status_code == 200


def test_a_link_alone_asks_for_the_password(person: Person) -> None:
    person.register()
    answer = person.post("verify", {"token": person.queue.last_token})
    assert (answer.status_code, answer.json()["code"]) == (400, "password_required")
    assert "password that you chose when you signed up" in answer.json()["detail"]
    assert person.sign_in().status_code == 401


def test_a_victim_who_clicks_verifies_nothing_for_the_attacker(person: Person) -> None:
    person.register(ADA, THIEF, "Thief")
    stolen = person.queue.last_token
    answer = person.verify(stolen, PASSWORD)
    assert (answer.status_code, answer.json()["code"]) == (400, "credentials_invalid")
    assert person.sign_in(THIEF).status_code == 401
    # She signs up herself, and it is her account.
    mail_pause_passes(person)
    person.register()
    assert person.verify(person.queue.last_token).status_code == 200
    assert person.sign_in().status_code == 200
    assert person.sign_in(THIEF).status_code == 401
    [user] = person.store.users.values()
    assert user.name == "Ada"
    # And the attacker's link is dead, for whoever knows its password too.
    assert person.verify(stolen, THIEF).json()["code"] == "token_invalid"
    assert digest(stolen) not in person.store.verifications


def test_the_first_of_two_sign_ups_still_works_when_a_stranger_made_the_second(person: Person) -> None:
    person.register()
    mine = person.queue.last_token
    mail_pause_passes(person)
    person.register(ADA, THIEF, "Thief")
    theirs = person.queue.last_token
    assert person.verify(mine, THIEF).json()["code"] == "credentials_invalid"
    assert person.verify(theirs, PASSWORD).json()["code"] == "credentials_invalid"
    assert person.verify(mine).status_code == 200
    assert person.sign_in(THIEF).status_code == 401


def test_a_verified_account_is_changed_by_no_link(person: Person) -> None:
    person.sign_up()
    [user] = person.store.users.values()
    late = Verification(user.id, "Thief", person.passwords._hasher.hash(THIEF), "", digest("late"), tomorrow())
    person.store.verifications[digest("late")] = late
    assert person.verify("late", THIEF).json()["code"] == "token_invalid"
    assert person.store.users[user.id] == user


def test_passwords_for_one_link_are_guessed_a_few_times_only(person: Person) -> None:
    person.register()
    token = person.queue.last_token
    for _ in range(10):
        assert person.verify(token, THIEF).json()["code"] == "credentials_invalid"
    assert person.verify(token).json()["code"] == "token_invalid"


def test_a_made_up_link_does_not_verify(person: Person) -> None:
    person.register()
    for body in ({"token": "made-up"}, {"token": "made-up", "password": PASSWORD}):
        answer = person.post("verify", body)
        assert (answer.status_code, answer.json()["code"]) == (400, "token_invalid")


def test_a_link_of_the_release_before_asks_for_the_accounts_password(person: Person) -> None:
    person.store.users["1"] = User("1", ADA, "Ada", person.passwords._hasher.hash(PASSWORD), verified=False)
    person.store.verifications[digest("old")] = Verification("1", "", "", "1", digest("old"), tomorrow())
    assert person.verify("old", THIEF).json()["code"] == "credentials_invalid"
    assert person.verify("old").status_code == 200
    assert person.store.users["1"].name == "Ada"
    assert person.sign_in().status_code == 200


def test_to_the_release_before_a_link_verifies_its_own_registration_or_nothing(person: Person) -> None:
    """It verifies the account as it stands, which is the first registration."""
    person.register(ADA, THIEF)
    mail_pause_passes(person)
    person.register()
    [account] = person.store.users
    first, second = person.store.verifications.values()
    assert (first.user_id, second.user_id) == (account, "")


def test_the_store_cannot_be_read_for_links(person: Person) -> None:
    person.register()
    assert person.queue.last_token not in repr(person.store.__dict__)


def test_a_mail_that_the_broker_did_not_take_can_be_asked_for_at_once(person: Person) -> None:
    person.queue.is_down = True
    assert person.register().status_code == 202
    person.queue.is_down = False
    assert person.post("verification", {"email": ADA}).status_code == 202
    assert person.verify(person.queue.last_token).json()["verified"]


def test_the_newest_registration_is_the_one_whose_link_is_sent_again(person: Person) -> None:
    person.register(ADA, THIEF)
    mail_pause_passes(person)
    person.register()
    mail_pause_passes(person)
    person.post("verification", {"email": ADA})
    assert person.verify(person.queue.last_token).status_code == 200


def test_who_signs_up_a_moment_after_a_stranger_asks_for_the_link_again(person: Person) -> None:
    person.register(ADA, THIEF)
    person.register()
    assert len(person.queue.sent) == 1
    mail_pause_passes(person)
    person.post("verification", {"email": ADA})
    assert person.verify(person.queue.last_token).status_code == 200
    assert person.sign_in().status_code == 200


def test_few_sign_ups_are_kept_that_no_mail_was_sent_for(person: Person) -> None:
    for number in range(20):
        person.register(f"ada+{number}@example.com")
    assert len(person.store.verifications) == 1 + 5


def test_asking_for_the_link_again_does_not_tell_who_has_an_account(person: Person) -> None:
    person.sign_up()
    person.register("eve@example.com")
    answers = [person.post("verification", {"email": f"{who}@example.com"}) for who in ("ada", "eve", "bob")]
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, b'{"status":"accepted"}')}


def test_when_sign_ups_are_too_many_sign_in_goes_on(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    person.sign_up()
    monkeypatch.setattr(person.auth._sign_ups, "_limit", 0)
    refused = person.register("bob@example.com")
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert person.sign_in().status_code == 200


def test_work_that_fails_after_the_answer_is_counted_and_logged(
    person: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(person.store, "place_user", None)
    before = FAILURES._value.get()
    assert person.register().status_code == 202
    assert FAILURES._value.get() == before + 1
    assert "work after an answer failed" in caplog.text
    # Its place is free again.
    assert person.auth._sign_ups._running == 0


def test_a_mail_that_the_broker_did_not_take_is_counted_as_work_that_failed(person: Person) -> None:
    before = FAILURES._value.get()
    person.queue.is_down = True
    for path in ("register", "verification", "password/forgotten"):
        mail_pause_passes(person)
        body = {"email": ADA, **({"password": PASSWORD} if path == "register" else {})}
        assert person.post(path, body).status_code == 202
    assert FAILURES._value.get() == before + 3


def test_sign_ins_without_end_make_no_sign_up_a_failure_of_the_release(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.security.TURN_SECONDS", 0)
    failures, overloads = FAILURES._value.get(), OVERLOADS._value.get()
    others = threading.Event()
    person.passwords._executor.submit(others.wait)
    try:
        assert person.register().status_code == 202
    finally:
        others.set()
    assert (FAILURES._value.get(), OVERLOADS._value.get()) == (failures, overloads + 1)


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("email", rb"ada\ud800@example.com"),
        ("password", rb"correct horse battery \ud800"),
        ("password", rb"correct horse battery \u0000"),
        ("password", "correct horse battery \N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}".encode() * 4),
        ("password", b"correct horse battery \xff\xfe"),
        ("name", rb"Ada \udfff"),
        ("name", "$where.\u2028\N{GRINNING FACE}".encode()),
    ],
)
def test_no_text_that_a_client_sends_makes_the_work_after_an_answer_fail(
    person: Person, field: str, written: bytes
) -> None:
    """A failure there is held against the release, and mailed: decision 23."""
    fields = {"email": ADA.encode(), "password": PASSWORD.encode(), "name": b"Ada", field: written}
    sent = b", ".join(b'"%s": "%s"' % (name.encode(), text) for name, text in fields.items())
    before = FAILURES._value.get()
    answer = person.client.post(
        "/api/auth/register", content=b"{%s}" % sent, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (202, 400, 422)
    assert FAILURES._value.get() == before


def test_unverified_accounts_are_forgotten_after_a_week_and_verified_ones_never(person: Person) -> None:
    person.sign_up()
    person.register("bob@example.com")
    person.register("eve@example.com")
    for user_id, user in person.store.users.items():
        age = timedelta(days=1 if user.email == "eve@example.com" else 8)
        person.store.created[user_id] -= age
    assert asyncio.run(person.auth.purge_unverified()) == 1
    assert {user.email for user in person.store.users.values()} == {ADA, "eve@example.com"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "no-at-sign.example.com"),
        ("email", "a@b"),
        ("email", "two\r\nBcc: all@example.com"),
        ("email", "nul\0@example.com"),
        ("email", "x" * 250 + "@example.com"),
        ("password", "elevenchars"),
        ("password", "x" * 129),
        ("password", 123456789012),
        ("password", "password1234"),
        ("password", "ada@example.com 26"),
        ("name", "bell\a"),
        ("name", None),
        ("nmae", "misspelt"),
    ],
)
def test_what_is_not_acceptable_is_refused_with_the_field_named(person: Person, field: str, value: object) -> None:
    body = {"email": ADA, "password": PASSWORD, field: value}
    answer = person.post("register", body)
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert not person.store.users


def test_half_a_character_is_refused(person: Person) -> None:
    body = rb'{"email": "ada@example.com", "password": "half a \ud800 character"}'
    answer = person.client.post("/api/auth/register", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_a_refusal_does_not_repeat_the_password(person: Person) -> None:
    for password in ("tell nobody!", "iloveyou1234"):
        answer = person.post("register", {"email": "ada" if " " in password else ADA, "password": password})
        assert answer.status_code == 422
        assert password not in answer.text


def test_sign_ups_from_one_network_are_limited(person: Person) -> None:
    for number in range(60):
        address = f"2001:db8:1:2::{number:x}"
        assert person.register(f"{number}@example.com", headers=coming_from(address)).status_code == 202
    refused = person.register("more@example.com", headers=coming_from("2001:db8:1:2:ffff::1"))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert person.register("more@example.com", headers=coming_from("2001:db8:1:3::1")).status_code == 202
