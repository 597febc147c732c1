"""What the worker can be asked to do. Each task calls one function and may run twice."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from celery import shared_task
from pymongo.errors import PyMongoError
from redis import Redis
from redis.exceptions import RedisError

from celery_worker import service
from celery_worker.mailer import Mailer, SmtpMailer, notice_mail, verification_mail
from celery_worker.settings import WorkerSettings
from celery_worker.store import DeliveryStore, MongoDeliveryStore, stamp_heartbeat
from shared.clients.database import open_sync_database
from shared.queue import ECHO, HEARTBEAT, PURGE_DELIVERIES, SEND_NOTICE, SEND_VERIFICATION, Notice
from shared.settings import load_settings

logger = logging.getLogger("tasks")

# smtplib's errors are OSErrors, and so is every broken connection.
TRANSIENT = (OSError, PyMongoError, RedisError)
# With waits of 90 seconds on average, the 24 hours that a link works.
RETRIES = 960
# Below the visibility timeout, or the broker would hand a waiting message out twice.
RETRY_SECONDS = 180
# Nobody asks how a mail went: results would stay in Redis for a day, each as large as an attacker has patience.
MAIL = {
    "autoretry_for": TRANSIENT,
    "retry_backoff": True,
    "retry_backoff_max": RETRY_SECONDS,
    "max_retries": RETRIES,
    "ignore_result": True,
}


@dataclass(frozen=True)
class Resources:
    """What tasks need: opened once in each process, after it was forked."""

    settings: WorkerSettings
    deliveries: DeliveryStore
    mailer: Mailer
    cache: Redis


@cache
def resources() -> Resources:
    settings = load_settings(WorkerSettings)
    database = open_sync_database(settings.mongo_uri.get_secret_value(), "celery_db", "celery_worker")
    cache: Redis = Redis.from_url(settings.redis_uri.get_secret_value(), decode_responses=True)
    return Resources(settings, MongoDeliveryStore(database), SmtpMailer(settings), cache)


@shared_task(name=SEND_VERIFICATION, **MAIL)  # type: ignore[untyped-decorator]  # Celery ships no types
def send_verification(message_id: str, email: str, link: str) -> str:
    """Send the link that verifies an address. A delivered mail is not sent again."""
    using = resources()
    message = verification_mail(using.settings.mail_from, using.settings.site, message_id, email, link)
    outcome = service.send_once(using.deliveries, using.mailer, message_id, message)
    logger.info("verification mail", extra={"message_id": message_id, "outcome": outcome})
    return outcome


@shared_task(name=SEND_NOTICE, **MAIL)  # type: ignore[untyped-decorator]
def send_notice(message_id: str, email: str, kind: Notice, link: str = "") -> str:
    """Tell the owner of an address what happens to the account. A delivered mail is not sent again."""
    using = resources()
    message = notice_mail(using.settings.mail_from, using.settings.site, message_id, email, kind, link)
    outcome = service.send_once(using.deliveries, using.mailer, message_id, message)
    logger.info("notice", extra={"message_id": message_id, "kind": kind, "outcome": outcome})
    return outcome


@shared_task(name=ECHO)  # type: ignore[untyped-decorator]
def echo(word: str) -> str:
    """Answer with the same word, for whoever tries out a release."""
    return word


@shared_task(name=HEARTBEAT, ignore_result=True)  # type: ignore[untyped-decorator]
def heartbeat() -> None:
    """Show that beat, broker and worker work together."""
    stamp_heartbeat(resources().cache, datetime.now(UTC))


@shared_task(  # type: ignore[untyped-decorator]
    name=PURGE_DELIVERIES,
    autoretry_for=TRANSIENT,
    retry_backoff=True,
    retry_backoff_max=RETRY_SECONDS,
    ignore_result=True,
)
def purge_deliveries() -> int:
    """Forget old deliveries."""
    using = resources()
    purged = service.purge_deliveries(using.deliveries, using.settings.keep_deliveries_days)
    logger.info("purged deliveries", extra={"count": purged})
    return purged
