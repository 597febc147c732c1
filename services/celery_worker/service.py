"""The rules of the background work; no Celery, no driver."""

import logging
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Literal

from celery_worker.mailer import Mailer, MailRefused
from celery_worker.store import DeliveryStore

logger = logging.getLogger("mail")

# Longer than the task's time limit, so that a claim this old is nobody's.
STALE = timedelta(seconds=90)

Outcome = Literal["sent", "already sent", "refused"]


class DeliveryBusy(ConnectionError):
    """Another worker has this message in hand; look again later."""


def send_once(store: DeliveryStore, mailer: Mailer, message_id: str, message: EmailMessage) -> Outcome:
    """Send a message exactly once, however often it is asked for.

    One gap is left, as SMTP has no transactions: killed between the server's
    "accepted" and our record of it, the message is sent again, under the same
    Message-ID. The other order would lose mails instead of doubling them.
    """
    claim = store.claim(message_id, _now(), STALE)
    if claim == "delivered":
        return "already sent"
    if claim == "busy":
        raise DeliveryBusy(message_id)
    try:
        mailer.send(message)
    except MailRefused as error:
        logger.error("mail refused for good", extra={"message_id": message_id, "reason": str(error)})
        store.mark_refused(message_id, _now(), str(error))
        return "refused"
    except Exception:
        store.release(message_id)
        raise
    store.mark_delivered(message_id, _now())
    return "sent"


def purge_deliveries(store: DeliveryStore, keep_days: int) -> int:
    """Forget deliveries that no message can ask for any more."""
    return store.purge(_now() - timedelta(days=keep_days))


def _now() -> datetime:
    return datetime.now(UTC)
