"""What auth_service is told."""

from shared.settings import TokenSettings


class AuthSettings(TokenSettings):
    # Short, since an access token is checked without asking us.
    access_token_seconds: int = 900
    # Counted from the last refresh, so that who comes back within a month stays signed in.
    refresh_token_seconds: int = 30 * 86400
    verification_seconds: int = 86400
    # Two tabs may refresh at once; beyond this the older token counts as stolen.
    refresh_grace_seconds: int = 10
    sign_in_failures: int = 10
    sign_in_window_seconds: int = 900
    # One mail a minute to one address, whoever asks for it.
    mail_pause_seconds: int = 60
