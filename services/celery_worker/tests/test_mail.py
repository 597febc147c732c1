import smtplib
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import get_args

import pytest

from celery_worker import tasks
from celery_worker.mailer import MailRefused, notice_mail, verification_mail
from celery_worker.main import own_queue
from celery_worker.service import DeliveryBusy, purge_deliveries, send_once
from celery_worker.settings import WorkerSettings
from celery_worker.store import Claim
from shared.queue import NOTICES, SEND_NOTICE, SEND_VERIFICATION, Notice, new_celery

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


@pytest.mark.parametrize("kind", get_args(Notice))
def test_each_notice_says_the_same_in_plain_text_and_in_html(kind: Notice) -> None:
    reset = "https://berth.test/reset#token=" + "t" * 43
    message = notice_mail("Berth <no-reply@berth.test>", "https://berth.test", "id", "ada@example.com", kind, reset)
    assert message["To"] == "ada@example.com"
    links = {reset} if kind == "reset" else {"https://berth.test/forgotten"}
    for form in ("plain", "html"):
        part = message.get_body((form,))
        assert part
        assert all(link in part.get_content() for link in links)
        assert ("token=" in part.get_content()) == (kind == "reset")


def test_no_result_of_a_mail_stays_in_redis() -> None:
    assert tasks.send_verification.ignore_result
    assert tasks.send_notice.ignore_result


def test_what_the_release_before_does_not_know_waits_where_it_does_not_look() -> None:
    app = new_celery("memory://")
    sent = app.amqp.router.route({}, SEND_NOTICE)["queue"].name
    assert sent == NOTICES
    before = (app.conf.task_default_queue, own_queue(WorkerSettings.model_construct(colour="blue")))
    assert sent not in before
    assert app.amqp.router.route({}, SEND_VERIFICATION)["queue"].name == app.conf.task_default_queue


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
