"""Releases on a host: two colours side by side, one of them live."""
