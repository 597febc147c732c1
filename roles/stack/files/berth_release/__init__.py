"""Releases on a host: two colours side by side, one of them live. Its command is berth-release."""
