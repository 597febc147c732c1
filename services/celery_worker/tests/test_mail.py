import smtplib
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from celery_worker.mailer import MailRefused, verification_mail
from celery_worker.service import DeliveryBusy, purge_deliveries, send_once
from celery_worker.store import Claim

LINK = "https://berth.test/verify#token=" + "t" * 43


class MemoryDeliveries:
    def __init__(self) -> None:
        self.state: dict[str, tuple[str, datetime]] = {}

    def claim(self, message_id: str, now: datetime, stale: timedelta) -> Claim:
        state, at = self.state.get(message_id, ("", now))
        if state and state != "sending":
            return "delivered"
        if state and at >= now - stale:
            return "busy"
        self.state[message_id] = ("sending", now)
        return "ours"

    def mark_delivered(self, message_id: str, now: datetime) -> None:
        self.state[message_id] = ("delivered", now)

    def mark_refused(self, message_id: str, now: datetime, reason: str) -> None:  # noqa: ARG002  # the interface has it
        self.state[message_id] = ("refused", now)

    def release(self, message_id: str) -> None:
        del self.state[message_id]

    def purge(self, before: datetime) -> int:
        old = [each for each, (_, at) in self.state.items() if at < before]
        for each in old:
            del self.state[each]
        return len(old)


class Outbox:
    def __init__(self) -> None:
        self.sent: list[EmailMessage] = []
        self.error: Exception | None = None

    def send(self, message: EmailMessage) -> None:
        if self.error:
            raise self.error
        self.sent.append(message)


@pytest.fixture
def deliveries() -> MemoryDeliveries:
    return MemoryDeliveries()


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def message() -> EmailMessage:
    return verification_mail("Berth <no-reply@berth.test>", "https://berth.test", "id", "ada@example.com", LINK)


def test_the_mail_says_the_same_in_plain_text_and_in_html(message: EmailMessage) -> None:
    assert (message["From"], message["To"]) == ("Berth <no-reply@berth.test>", "ada@example.com")
    for kind in ("plain", "html"):
        part = message.get_body((kind,))
        assert part
        assert LINK in part.get_content()
    # Unbroken in what goes over the wire too, so that a look at the raw mail is enough.
    assert LINK in message.as_string()


def test_a_message_is_sent_once_however_often_it_is_asked_for(
    deliveries: MemoryDeliveries, outbox: Outbox, message: EmailMessage
) -> None:
    assert send_once(deliveries, outbox, "id", message) == "sent"
    assert send_once(deliveries, outbox, "id", message) == "already sent"
    assert len(outbox.sent) == 1


def test_a_message_that_another_worker_has_in_hand_waits(
    deliveries: MemoryDeliveries, outbox: Outbox, message: EmailMessage
) -> None:
    deliveries.state["id"] = ("sending", datetime.now(UTC))
    with pytest.raises(DeliveryBusy):
        send_once(deliveries, outbox, "id", message)
    assert not outbox.sent


def test_a_message_whose_worker_was_killed_is_sent_by_another(
    deliveries: MemoryDeliveries, outbox: Outbox, message: EmailMessage
) -> None:
    deliveries.state["id"] = ("sending", datetime.now(UTC) - timedelta(minutes=5))
    assert send_once(deliveries, outbox, "id", message) == "sent"


@pytest.mark.parametrize("error", [ConnectionRefusedError(), smtplib.SMTPServerDisconnected()])
def test_a_mail_server_that_is_away_is_tried_again(
    deliveries: MemoryDeliveries, outbox: Outbox, message: EmailMessage, error: Exception
) -> None:
    outbox.error = error
    with pytest.raises(type(error)):
        send_once(deliveries, outbox, "id", message)
    outbox.error = None
    assert send_once(deliveries, outbox, "id", message) == "sent"


def test_an_address_that_is_refused_is_not_asked_again(
    deliveries: MemoryDeliveries, outbox: Outbox, message: EmailMessage
) -> None:
    outbox.error = MailRefused("550")
    assert send_once(deliveries, outbox, "id", message) == "refused"
    outbox.error = None
    assert send_once(deliveries, outbox, "id", message) == "already sent"
    assert not outbox.sent


def test_old_deliveries_are_forgotten_and_recent_ones_kept(deliveries: MemoryDeliveries) -> None:
    now = datetime.now(UTC)
    deliveries.state = {"old": ("delivered", now - timedelta(days=31)), "new": ("delivered", now)}
    assert purge_deliveries(deliveries, keep_days=30) == 1
    assert list(deliveries.state) == ["new"]
