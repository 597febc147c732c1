"""Encrypted backups of one host: made, committed, checked, restored, and thinned out. See role backup's README."""
