import pytest

from auth_service.tests.conftest import PASSWORD, Person


def test_an_email_registers_once_in_whatever_case(person: Person) -> None:
    first = person.register()
    assert first.status_code == 201
    assert first.json() | {"id": ""} == {"id": "", "email": "ada@example.com", "verified": False, "mail": "queued"}
    again = person.register("Ada@Example.COM")
    assert again.status_code == 409
    assert again.json()["code"] == "email_taken"


def test_the_link_in_the_mail_leads_to_the_public_address(person: Person) -> None:
    person.register()
    [mail] = person.queue.sent
    assert mail["task"] == "mail.send_verification"
    assert mail["email"] == "ada@example.com"
    assert mail["link"].startswith("https://berth.test/verify#token=")


def test_the_password_is_not_stored(person: Person) -> None:
    person.register()
    [user] = person.store.users.values()
    assert user.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PASSWORD not in repr(person.store.__dict__)


def test_a_link_verifies_and_may_be_opened_twice(person: Person) -> None:
    person.register()
    token = {"token": person.queue.last_token}
    for _ in range(2):
        answer = person.post("verify", token)
        assert answer.status_code == 200
        assert answer.json() == {"email": "ada@example.com", "verified": True}


def test_a_made_up_link_does_not_verify(person: Person) -> None:
    person.register()
    answer = person.post("verify", {"token": "made-up"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "token_invalid"


def test_the_store_cannot_be_read_for_links(person: Person) -> None:
    person.register()
    assert person.queue.last_token not in repr(person.store.__dict__)


def test_an_account_outlives_a_broker_that_is_down_and_its_mail_can_be_asked_for_later(person: Person) -> None:
    person.queue.is_down = True
    assert person.register().json()["mail"] == "delayed"
    assert person.post("verification", {"email": "ada@example.com"}).status_code == 202
    person.queue.is_down = False
    assert person.post("verification", {"email": "ada@example.com"}).status_code == 202
    assert person.post("verify", {"token": person.queue.last_token}).json()["verified"]


def test_asking_for_the_link_again_does_not_tell_who_has_an_account(person: Person) -> None:
    person.register()
    known = person.post("verification", {"email": "ada@example.com"})
    unknown = person.post("verification", {"email": "bob@example.com"})
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)


def test_nobody_is_flooded_with_mails(person: Person) -> None:
    person.register()
    for _ in range(5):
        person.post("verification", {"email": "ada@example.com"})
    assert len(person.queue.sent) == 2


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
        ("name", "bell\a"),
        ("name", None),
        ("nmae", "misspelt"),
    ],
)
def test_what_is_not_acceptable_is_refused_with_the_field_named(person: Person, field: str, value: object) -> None:
    body = {"email": "ada@example.com", "password": PASSWORD, field: value}
    answer = person.post("register", body)
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert not person.store.users


def test_half_a_character_is_refused(person: Person) -> None:
    body = rb'{"email": "ada@example.com", "password": "half a \ud800 character"}'
    answer = person.client.post("/api/auth/register", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_a_refusal_does_not_repeat_the_password(person: Person) -> None:
    answer = person.post("register", {"email": "ada", "password": "tell nobody!"})
    assert answer.status_code == 422
    assert "tell nobody!" not in answer.text
