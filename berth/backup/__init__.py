"""Encrypted backups of one host: run, check, restore, prune. See role backup's README."""
