"""What a host of Berth does by itself: releases, backups and restores, metrics, log shipping, secret files.

The standard library alone. Role program packs it into one file, /usr/local/sbin/berth.
"""

__version__ = "0.1.0"
