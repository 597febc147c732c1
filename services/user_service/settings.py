"""What user_service is told."""

from shared.token_settings import TokenSettings


class UserSettings(TokenSettings):
    # A cached profile answers without the database. Changes are written through; this bounds how long two
    # changes at the same instant could leave the older one in the cache.
    profile_cache_seconds: int = 60
