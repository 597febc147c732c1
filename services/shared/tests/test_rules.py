from email.message import EmailMessage
from email.policy import SMTP

import pytest

from shared import rules


@pytest.mark.parametrize(
    "value",
    [
        "www.exchangemedia.net",
        "example-shop.de",
        "goodexample.com",
        "my-example.com",
        "example.com.br",
        "example.community",
        "Berth <no-reply@goodexample.com>",
        "<no-reply@your-company.net>",
        "registry.exchange-media.net/berth",
    ],
)
def test_a_name_that_only_looks_like_an_example_is_none(value: str) -> None:
    assert not rules.is_example(value)


@pytest.mark.parametrize(
    "value",
    [
        "www.example.com",
        "example.org",
        "EXAMPLE.NET",
        "Berth <no-reply@example.com>",
        "rediss://user:password@cache.example.net:6380/0",
        "mail.example",
        "replace-me",
        "CHANGE_ME",
        "changeme123",
        "changemechangemechangeme",
        "<www.your-company.net>",
        "<Your site no-reply@your-company.net>",
    ],
)
def test_what_was_left_as_the_example_has_it_is_noticed(value: str) -> None:
    assert rules.is_example(value)


@pytest.mark.parametrize(
    "value", ["smtp.x.net", "SMTP.x.net", "mailbox", "mail_relay", "10.0.0.7", "fd00::7", "localhost"]
)
def test_a_host_is_a_name_or_an_address(value: str) -> None:
    assert rules.host_problem(value) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("smtp.x.net:587", "has a port: write smtp.x.net, and the port in the variable for ports"),
        ("smtp://smtp.x.net", "begins with a scheme: write smtp.x.net"),
        ("smtps://me:secret@smtp.x.net:465/", "begins with a scheme: write smtp.x.net"),
        (" smtp.x.net", "has a blank or a control character in it: write smtp.x.net"),
        ("smtp.x.net\n", "has a blank or a control character in it: write smtp.x.net"),
        ("smtp.x.net.", "ends with a dot: write smtp.x.net"),
        ("smtp.x.net/", "has a path: write smtp.x.net"),
        ("me@smtp.x.net", "has a login: write smtp.x.net"),
        ("[fd00::7]:25", "has a port: write fd00::7"),
        ("smtp.müller.de", "has letters that DNS spells otherwise: write smtp.xn--mller-kva.de"),
        ("10.0.0.300", "is not a host name"),
        ("-smtp.x.net", "is not a host name"),
        ("smtp..x.net", "is not a host name"),
    ],
)
def test_what_a_host_has_too_much_is_named_with_what_to_write(value: str, said: str) -> None:
    assert rules.host_problem(value).startswith(said)


def test_a_password_in_a_host_is_not_repeated() -> None:
    assert "hunter2" not in rules.host_problem("smtp://me:hunter2@smtp.x.net")


@pytest.mark.parametrize("value", ["x.net", "www.xn--mller-kva.de", "shop.xn--p1ai", "0-9.x.net", "goodexample.com"])
def test_a_domain_is_a_public_name(value: str) -> None:
    assert rules.domain_problem(value) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("WWW.X.net", "has capital letters: write www.x.net"),
        ("https://www.x.net", "begins with a scheme: write www.x.net"),
        ("www.x.net.", "ends with a dot: write www.x.net"),
        ("www.x.net/shop", "has a path: write www.x.net"),
        ("www.x.net:8443", "has a port: write www.x.net"),
        (" www.x.net ", "has a blank or a control character in it: write www.x.net"),
        ("*.x.net", "has a wildcard, which needs DNS-01"),
        ("müller.de", "has letters that DNS spells otherwise: write xn--mller-kva.de"),
        ("straße.de", "has letters that DNS spells otherwise: write xn--strae-oqa.de"),
        ("203.0.113.7", "is an address"),
        ("my_shop.x.net", "has an underscore"),
        ("shop", "is not a host name: it has no dot"),
        ("x" * 64 + ".net", "is not a host name"),
        ("x.123", "is not a host name"),
    ],
)
def test_a_domain_that_no_certificate_is_issued_for_gets_the_right_sentence(value: str, said: str) -> None:
    assert rules.domain_problem(value).startswith(said)


SENDERS = [
    "no-reply@x.net",
    "<no-reply@x.net>",
    "Berth <no-reply@x.net>",
    "Berth Inc. <no-reply@x.net>",
    "Jürgens Laden <no-reply@x.net>",
    '"Berth, Inc." <a.b+c@mail.x.net>',
    '"Support @ Berth" <a@b.c>',
    "Berth <no-reply@localhost>",
]


@pytest.mark.parametrize("value", SENDERS)
def test_a_sender_is_one_address_for_whoever_reads_the_header(value: str) -> None:
    assert rules.sender_problem(value) == ""
    message = EmailMessage(SMTP)
    message["From"] = value
    [address] = message["From"].addresses
    assert address.addr_spec == rules.mail_address(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Berth <a@b.c>, x@y.z", "holds more than one address"),
        ("a@b.c, x@y.z", "holds more than one address"),
        ("a@b.c x@y.z", "holds more than one address"),
        ("no at sign", "holds no mail address"),
        ("Berth <no-reply>", "holds no mail address"),
        ("Berth <a@b.c> <", "holds more than one address or bracket"),
        ("Berth <<a@b.c>>", "holds more than one address or bracket"),
        ("Berth <a@b.c", "is not one mail address"),
        ("Berth a@b.c", "is not one mail address"),
        ("Berth <a@b.c>\nBcc: x@y.z", "holds a line break"),
        ("Be\rrth <a@b.c>", "holds a line break"),
        ("Be\x00rth <a@b.c>", "holds a line break"),
        ("Berth, Inc. <a@b.c>", "has punctuation in its name"),
        ("Berth: shop <a@b.c>", "has punctuation in its name"),
        ("Berth <a@b..c>", "is not one mail address"),
        ("Berth <.a@b.c>", "is not one mail address"),
        ("Berth <a@>", "is not one mail address"),
        ("Berth <jürgen@b.c>", "has letters in its address"),
        (" a@b.c", "is not one mail address"),
    ],
)
def test_a_sender_that_is_anything_but_one_address_is_refused(value: str, said: str) -> None:
    assert rules.sender_problem(value).startswith(said)


@pytest.mark.parametrize("value", ["you@x.net", "you@x.net, me@x.net", "you@x.net,me@x.net"])
def test_mail_goes_to_one_address_or_several(value: str) -> None:
    assert rules.recipients_problem(value) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Ada <ada@x.net>", "holds a name"),
        ("ada", "is not a mail address"),
        ("ada@x.net,", "is not a mail address"),
        ("ada@x.net\nroot: me@x.net", "holds a line break"),
        ("<ada@x.net", "is not a mail address"),
    ],
)
def test_recipients_that_some_program_would_misread_are_refused(value: str, said: str) -> None:
    assert rules.recipients_problem(value).startswith(said)


@pytest.mark.parametrize(
    "value", ["https://x.net", "https://x.net:3100/a?b=c", "http://[fd00::7]:8080/", "http://10.0.0.7/"]
)
def test_a_url_has_a_scheme_and_a_host(value: str) -> None:
    assert rules.url_problem(value) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x.net/ping", "must begin with http:// or https://"),
        ("ftp://x.net", "must begin with"),
        ("https://x.net/a b", "has a blank"),
        (" https://x.net", "has a blank"),
        ("https://", "names no host"),
        ("https://:443/", "names no host"),
        ("https://x..net/", "names no host"),
        ("https://x.net:0/", "has a port that is none"),
        ("https://x.net:99999/", "has a port that is none"),
        ("https://x.net:/", "has a port that is none"),
        ("https://me:secret@x.net/", "holds a login"),
    ],
)
def test_a_url_that_cannot_be_called_is_refused(value: str, said: str) -> None:
    assert rules.url_problem(value).startswith(said)


def test_a_login_in_a_url_passes_where_it_is_wanted() -> None:
    assert rules.url_problem("https://me:secret@x.net/hook", login=True) == ""


@pytest.mark.parametrize(
    ("value", "right"), [("587", True), (25, True), ("0", False), ("65536", False), ("58x", False)]
)
def test_a_port_is_a_number_that_ports_have(value: object, right: bool) -> None:
    assert (rules.port_problem(value) == "") == right
