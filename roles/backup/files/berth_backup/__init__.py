"""Backups of one host: made, committed, checked, and thinned out. See the role's README for what a backup is."""

__version__ = "0.1.0"
