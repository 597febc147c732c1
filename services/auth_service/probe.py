"""`python3 -m auth_service.probe < JSON`: the account that tries out a release has this email and this password.

It needs no mailbox, so it is made verified. Only who may run commands in this container can do that.
"""

import asyncio
import sys
import uuid
from datetime import UTC, datetime

from auth_service.schemas import Registration
from auth_service.settings import AuthSettings
from auth_service.store import User, ensure_indexes, upsert_verified_user
from shared.clients.database import open_database
from shared.security import Passwords
from shared.settings import load_settings


async def main(account: Registration) -> None:
    settings = load_settings(AuthSettings)
    database = open_database(settings.mongo_uri.get_secret_value(), "auth_db", "auth_service-probe")
    passwords = Passwords()
    try:
        await ensure_indexes(database)
        password_hash = await passwords.hash(account.password)
        user = User(uuid.uuid4().hex, account.email, account.name, password_hash, verified=True)
        await upsert_verified_user(database, user, datetime.now(UTC))
    finally:
        passwords.close()
        database.client.close()


if __name__ == "__main__":
    asyncio.run(main(Registration.model_validate_json(sys.stdin.read())))
