"""The program on each host: releases, backups and restores, metrics, log shipping, secret files.

Only the standard library. Role program packs it into one file, /usr/local/sbin/berth.
"""

__version__ = "0.2.0"
