"""`python3 -m auth_service.schema`: bring the database to what this release needs, before it is started.

Forward-compatible: the release before this one goes on with the same database, and may come back.
"""

import asyncio

from auth_service.settings import AuthSettings
from auth_service.store import ensure_indexes
from shared.clients.database import open_database
from shared.settings import load_settings


async def main() -> None:
    settings = load_settings(AuthSettings)
    database = open_database(settings.mongo_uri.get_secret_value(), "auth_db", "auth_service-schema")
    try:
        await ensure_indexes(database)
    finally:
        database.client.close()


if __name__ == "__main__":
    asyncio.run(main())
