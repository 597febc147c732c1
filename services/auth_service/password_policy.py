"""Which new passwords are refused: those that are guessed first. Nobody is told which characters to use."""

import re

from zxcvbn import zxcvbn

# Fewer guesses than this, and it is found. The rules above allow an attacker some thousand guesses a month at one
# account; a stolen hash of 25 ms costs a hundred million guesses a month of one core.
GUESSES = 10**8
# The time of the check grows with the square of the length. What is guessed late in its first part is late as a whole.
LOOKED_AT = 32

TOO_COMMON = "This password is among the first that are guessed. Choose another: a few unrelated words make a good one."
TOO_CLOSE = "This password contains your email address. Choose another: a few unrelated words make a good one."


def password_problem(password: str, email: str, site: str) -> str:
    """Say why a password would be guessed, or nothing."""
    if email in password.lower():
        return TOO_CLOSE
    words = {part for part in re.split(r"[^a-z0-9]+", f"{email} {site}".lower()) if len(part) > 2}
    words |= {email.partition("@")[0], site.rpartition("/")[2].lower(), "berth"}
    found = zxcvbn(password[:LOOKED_AT], user_inputs=sorted(words))
    return TOO_COMMON if found["guesses"] < GUESSES else ""
