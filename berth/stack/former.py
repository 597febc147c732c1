"""The secrets of an .env from before the compose file described them, until role environment writes it anew.

To be removed with the release of Berth after this one.
"""

from __future__ import annotations

from berth.stack.needs import Holder, Needs

_KEYS = ("jwt_private_key", "jwt_public_keys", "jwt_secret_key", "jwt_previous_secret_keys")
NEEDS = Needs(
    holders={
        "auth_service": Holder(10001, _KEYS, "auth_service", "auth_service"),
        "user_service": Holder(10002, ("jwt_public_keys",), "user_service", "user_service"),
        "celery_worker": Holder(10003, ("smtp_password",), "celery_worker", "celery_worker"),
        "flower": Holder(10003, ("flower_password",), "celery_worker", "celery_worker"),
        "mongo": Holder(999, ("mongo_root_password", "mongo_keyfile")),
        "redis": Holder(999, ("redis_admin_password",)),
    },
    databases={"auth_service": "auth_db", "user_service": "user_db", "celery_worker": "celery_db"},
    rights={
        "auth_service": (
            "~revoked:* ~ratelimit:* ~celery* ~_kombu.* resetchannels -@all +@connection +@transaction +@scripting"
            " +get +set +incrby +ttl +del +exists +lpush +sadd +llen +smembers +zadd +zrem +zrangebyscore +time"
            " -@dangerous"
        ),
        "user_service": "%R~revoked:* ~profile:* resetchannels -@all +@connection +mget +set -@dangerous",
        "celery_worker": (
            "~celery* ~_kombu.* ~unacked* ~heartbeat:* ~*.celery.pidbox* resetchannels &/0.celery.pidbox"
            " &/0.celeryev/* &celery-task-meta-* -@all +@connection +@read +@write +@transaction +@pubsub +@scripting"
            " +time -@dangerous"
        ),
    },
    kinds={
        "jwt_private_key": "p256",
        "jwt_public_keys": "public_keys_of jwt_private_key",
        "jwt_secret_key": "hex",
        "jwt_previous_secret_keys": "optional",
        "mongo_keyfile": "keyfile",
    },
)
