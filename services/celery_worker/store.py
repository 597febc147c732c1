"""Every query of celery_worker: which messages were delivered, and the heartbeat."""

from datetime import datetime, timedelta
from typing import Literal, Protocol

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError
from redis import Redis

from shared.clients.database import Document

Claim = Literal["ours", "delivered", "busy"]

HEARTBEAT_KEY = "heartbeat:celery"
HEARTBEAT_SECONDS = 120


class DeliveryStore(Protocol):
    """Remembers each message from the first attempt on."""

    def claim(self, message_id: str, now: datetime, stale: timedelta) -> Claim: ...
    def mark_delivered(self, message_id: str, now: datetime) -> None: ...
    def mark_refused(self, message_id: str, now: datetime, reason: str) -> None: ...
    def release(self, message_id: str) -> None: ...
    def purge(self, before: datetime) -> int: ...


class MongoDeliveryStore:
    """Deliveries in celery_db. `_id` is the message id, so the database's own unique index decides."""

    def __init__(self, database: Database[Document]) -> None:
        self._deliveries = database.deliveries

    def claim(self, message_id: str, now: datetime, stale: timedelta) -> Claim:
        """Take a message, unless it is delivered or another worker has it in hand."""
        try:
            self._deliveries.insert_one({"_id": message_id, "state": "sending", "at": now})
        except DuplicateKeyError:
            pass
        else:
            return "ours"
        # Whoever claimed it that long ago was killed: no attempt lasts that long.
        taken = self._deliveries.find_one_and_update(
            {"_id": message_id, "state": "sending", "at": {"$lt": now - stale}}, {"$set": {"at": now}}
        )
        if taken:
            return "ours"
        found = self._deliveries.find_one({"_id": message_id})
        return "delivered" if found and found["state"] != "sending" else "busy"

    def mark_delivered(self, message_id: str, now: datetime) -> None:
        self._deliveries.update_one({"_id": message_id}, {"$set": {"state": "delivered", "at": now}})

    def mark_refused(self, message_id: str, now: datetime, reason: str) -> None:
        self._deliveries.update_one({"_id": message_id}, {"$set": {"state": "refused", "at": now, "reason": reason}})

    def release(self, message_id: str) -> None:
        self._deliveries.delete_one({"_id": message_id, "state": "sending"})

    def purge(self, before: datetime) -> int:
        return self._deliveries.delete_many({"at": {"$lt": before}}).deleted_count


def stamp_heartbeat(cache: Redis, now: datetime) -> None:
    """Beat asked, the broker carried, a worker did: whoever watches the site reads this key."""
    cache.set(HEARTBEAT_KEY, now.isoformat(), ex=HEARTBEAT_SECONDS)
