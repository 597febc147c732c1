"""Wrong passwords and mails are counted: by account, by network, and over the whole site."""

import logging

import pytest

from auth_service.limits import MAILS_REFUSED, SIGN_IN_FAILURES, mailbox_of, network_of
from auth_service.tests.conftest import ADA, PASSWORD, Person, coming_from

HOME, AWAY = coming_from("198.51.100.7"), coming_from("203.0.113.9")


@pytest.fixture
def member(person: Person) -> Person:
    person.sign_up()
    return person


def guess_from_everywhere(member: Person, times: int, email: str = ADA) -> None:
    """A botnet: each guess from another network, and each after the wait that it was told."""
    for number in range(times):
        for key in [key for key in member.counters.counts if key.startswith("signin-wait:")]:
            del member.counters.counts[key]
        assert member.sign_in("wrong", email, headers=coming_from(f"2001:db8:{number:x}::1")).status_code == 401


def test_the_eleventh_guess_has_to_wait_even_if_it_is_right(member: Person) -> None:
    for _ in range(10):
        assert member.sign_in("wrong").status_code == 401
    answer = member.sign_in(PASSWORD)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_guesses_from_one_network_do_not_lock_out_another(member: Person) -> None:
    for _ in range(10):
        # What comes before the last hop was written by the guesser.
        member.sign_in("wrong", headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.9"})
    assert member.sign_in(headers=HOME).status_code == 200


def test_an_ipv6_visitor_counts_as_the_network_that_is_all_his(member: Person) -> None:
    for number in range(10):
        member.sign_in("wrong", headers=coming_from(f"2001:db8:1:2::{number:x}"))
    assert member.sign_in(headers=coming_from("2001:db8:1:2:ffff::")).status_code == 429
    assert member.sign_in(headers=coming_from("2001:db8:1:3::")).status_code == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somebody", "unknown"),
    ],
)
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_behind_trusted_proxies_the_visitor_is_counted_and_not_the_proxy(member: Person) -> None:
    member.trust("192.0.2.0/24", "198.18.0.1")
    for hops in ("203.0.113.9, 192.0.2.1", "203.0.113.9, 192.0.2.1, 198.18.0.1") * 5:
        member.sign_in("wrong", headers={"X-Forwarded-For": f"198.51.100.7, {hops}"})
    refused = member.sign_in(headers={"X-Forwarded-For": "198.51.100.8, 203.0.113.9, 192.0.2.77"})
    assert refused.status_code == 429
    assert member.sign_in(headers={"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}).status_code == 200


def test_what_somebody_writes_who_is_no_trusted_proxy_counts_for_nothing(member: Person) -> None:
    member.trust("192.0.2.0/24")
    for guess in range(10):
        # The guesser claims to be a proxy's visitor, a new one each time.
        member.sign_in("wrong", headers={"X-Forwarded-For": f"198.51.100.{guess}, 192.0.2.1, 203.0.113.9"})
    assert member.sign_in(headers={"X-Forwarded-For": "192.0.2.1, 203.0.113.9"}).status_code == 429


def test_a_good_sign_in_forgets_the_bad_ones(member: Person) -> None:
    for _ in range(9):
        member.sign_in("wrong")
    assert member.sign_in().status_code == 200
    for _ in range(9):
        assert member.sign_in("wrong").status_code == 401
    assert member.sign_in().status_code == 200


def test_a_network_that_guesses_at_many_accounts_has_to_wait(member: Person) -> None:
    for number in range(100):
        assert member.sign_in("wrong", f"{number}@example.com", headers=AWAY).status_code == 401
    assert member.sign_in("wrong", "one-more@example.com", headers=AWAY).status_code == 429
    assert member.sign_in(headers=AWAY).status_code == 429
    assert member.sign_in(headers=HOME).status_code == 200


def test_others_behind_the_same_address_do_not_lock_out_who_has_signed_in_from_there(member: Person) -> None:
    assert member.sign_in(headers=AWAY).status_code == 200
    for number in range(100):
        member.sign_in("wrong", f"{number}@example.com", headers=AWAY)
    assert member.sign_in(headers=AWAY).status_code == 200


def test_an_unknown_address_is_counted_like_a_known_one(member: Person) -> None:
    for email in (ADA, "nobody@example.com"):
        answers = [member.sign_in("wrong", email, headers=AWAY).status_code for _ in range(11)]
        assert answers == [401] * 10 + [429]


def test_a_botnet_is_slowed_and_does_not_lock_the_owner_out(member: Person) -> None:
    assert member.sign_in(headers=HOME).status_code == 200
    guess_from_everywhere(member, 20)
    # One attempt at a time from networks that are new to the account, with growing waits.
    member.sign_in("wrong", headers=AWAY)
    waits = []
    for number in range(20):
        refused = member.sign_in("wrong", headers=coming_from(f"192.0.2.{number}"))
        assert refused.status_code == 429
        waits.append(int(refused.headers["retry-after"]))
        member.counters.let_pass(waits[-1])
        assert member.sign_in("wrong", headers=coming_from(f"192.0.2.{number}")).status_code == 401
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(waits) == 60
    assert member.sign_in(headers=HOME).status_code == 200


def test_beyond_a_hundred_failures_in_a_row_guesses_are_four_an_hour(member: Person) -> None:
    guess_from_everywhere(member, 101)
    assert member.sign_in("wrong", headers=AWAY).headers["retry-after"] == "900"


def test_the_owner_is_told_once_a_day(member: Person) -> None:
    guess_from_everywhere(member, 30)
    told = [mail for mail in member.queue.to(ADA) if mail.get("kind") == "guessing"]
    assert len(told) == 1


def test_nobody_is_told_about_an_address_without_an_account(member: Person) -> None:
    guess_from_everywhere(member, 30, "nobody@example.com")
    assert not member.queue.to("nobody@example.com")


def test_an_owner_far_from_home_comes_in_by_mail(member: Person) -> None:
    guess_from_everywhere(member, 101)
    member.sign_in("wrong", headers=AWAY)
    assert member.sign_in(headers=AWAY).status_code == 429
    member.post("password/forgotten", {"email": ADA}, headers=AWAY)
    chosen = {"token": member.queue.last_token, "password": "another long password"}
    assert member.post("password/reset", chosen, headers=AWAY).status_code == 200
    assert member.sign_in("another long password", headers=AWAY).status_code == 200


def test_failures_are_counted_for_the_whole_site(member: Person, caplog: pytest.LogCaptureFixture) -> None:
    def failures() -> float:
        return sum(sample.value for each in SIGN_IN_FAILURES.collect() for sample in each.samples[:1])

    before = failures()
    with caplog.at_level(logging.INFO, "limits"):
        member.sign_in("wrong")
    member.sign_in()
    assert failures() == before + 1
    assert [record.message for record in caplog.records if record.name == "limits"] == ["sign-in failed"]


# --- Mails ---


def refused(budget: str) -> float:
    return float(MAILS_REFUSED.labels(budget)._value.get())


def test_nobody_is_flooded_with_mails(member: Person) -> None:
    for _ in range(20):
        member.post("password/forgotten", {"email": ADA})
        member.register()
    # Two mails now, however often they are asked for, and five of each kind a day.
    assert len(member.queue.to(ADA)) == 1 + 2
    for _ in range(20):
        member.counters.let_pass(61)
        member.post("password/forgotten", {"email": ADA}, headers=AWAY)
        member.register(headers=HOME)
    assert len(member.queue.to(ADA)) == 5 + 5


def test_a_hundred_names_of_one_mailbox_are_one_address(person: Person) -> None:
    for number in range(60):
        assert person.register(f"ada+{number}@example.com").status_code == 202
    assert len(person.queue.sent) == 1


@pytest.mark.parametrize(
    ("email", "mailbox"),
    [
        ("ada+1@example.com", "ada@example.com"),
        ("a.d.a@example.com", "a.d.a@example.com"),
        ("+1@example.com", "+1@example.com"),
    ],
)
def test_the_mailbox_of_an_address(email: str, mailbox: str) -> None:
    assert mailbox_of(email) == mailbox


def test_a_network_causes_twenty_mails_an_hour(person: Person) -> None:
    before = refused("network")
    for number in range(25):
        assert person.register(f"{number}@example.com", headers=AWAY).status_code == 202
    assert len(person.queue.sent) == 20
    assert refused("network") == before + 5
    assert len(person.store.verifications) == 20
    person.register("one-more@example.com", headers=HOME)
    assert len(person.queue.sent) == 21


def test_the_site_sends_so_many_mails_an_hour_and_says_that_it_is_limited(
    person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    person.settings.mails_per_hour = 3
    before = refused("site")
    with caplog.at_level(logging.WARNING, "limits"):
        for number in range(6):
            person.register(f"{number}@example.com", headers=coming_from(f"192.0.2.{number}"))
    assert len(person.queue.sent) == 3
    assert refused("site") == before + 3
    # A line a minute, not one for each.
    assert [record.budget for record in caplog.records] == ["site"]  # type: ignore[attr-defined]


def test_strangers_do_not_use_up_the_mails_that_an_owner_needs(member: Person) -> None:
    assert member.sign_in(headers=HOME).status_code == 200
    for _ in range(10):
        member.counters.let_pass(61)
        member.post("password/forgotten", {"email": ADA}, headers=AWAY)
    before = len(member.queue.to(ADA))
    member.post("password/forgotten", {"email": ADA}, headers=HOME)
    assert len(member.queue.to(ADA)) == before + 1


def test_whoever_uses_up_the_sites_mails_does_not_keep_an_owner_from_a_new_password(member: Person) -> None:
    assert member.sign_in(headers=HOME).status_code == 200
    member.settings.mails_per_hour = 3
    for number in range(6):
        member.register(f"{number}@example.com", headers=coming_from(f"192.0.2.{number}"))
    before = len(member.queue.to(ADA))
    member.post("password/forgotten", {"email": ADA}, headers=HOME)
    assert len(member.queue.to(ADA)) == before + 1


def test_guesses_at_everybody_do_not_send_mails_to_everybody(person: Person) -> None:
    person.settings.mails_per_hour = 5
    person.settings.sign_in_failures_per_account = 1
    for number in range(4):
        person.sign_up(f"{number}@example.com")
    for number in range(4):
        person.sign_in("wrong", f"{number}@example.com", headers=AWAY)
    assert sum(mail.get("kind") == "guessing" for mail in person.queue.sent) == 1


def test_what_is_left_of_a_budget_does_not_tell_who_has_an_account(member: Person) -> None:
    """Whoever owns a mailbox could look which of his own mails still come."""
    for path in ("verification", "password/forgotten"):
        spent = []
        for email in (ADA, "nobody@example.com"):
            member.counters.counts.clear()
            member.post(path, {"email": email}, headers=AWAY)
            spent.append(sorted(n for key, (n, _) in member.counters.counts.items()))
        assert spent[0] == spent[1]


def test_the_right_password_is_never_counted(member: Person) -> None:
    for _ in range(30):
        assert member.sign_in(PASSWORD, headers=AWAY).status_code == 200
