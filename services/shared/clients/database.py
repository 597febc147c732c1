"""The one place that makes database clients."""

from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import MongoClient
from pymongo.database import Database as SyncDatabase
from pymongo.errors import PyMongoError

Document = dict[str, Any]
Database = AsyncIOMotorDatabase[Document]
DatabaseError = PyMongoError

# A request that cannot reach the database should say so before its user gives up.
_OPTIONS: dict[str, Any] = {
    "tz_aware": True,
    "serverSelectionTimeoutMS": 2000,
    "connectTimeoutMS": 2000,
    "socketTimeoutMS": 10000,
    "waitQueueTimeoutMS": 2000,
    "maxPoolSize": 20,
    "w": "majority",
}


def open_database(uri: str, default_name: str, appname: str) -> Database:
    """Open the database that the URI names. Nothing is sent until the first query."""
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(uri, appname=appname, **_OPTIONS)
    return client.get_default_database(default_name)


def open_sync_database(uri: str, default_name: str, appname: str) -> SyncDatabase[Document]:
    """The same for code that does not run in an event loop."""
    client: MongoClient[Document] = MongoClient(uri, appname=appname, **_OPTIONS)
    return client.get_default_database(default_name)
