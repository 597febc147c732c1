"""Wait until an edge has no client left. Arguments: the address of its figures, how many seconds at most.

Standard output: how many connections are left.
"""

import re
import sys
import time
import urllib.request

address, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
while True:
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - the role's own address
        figures = answer.read().decode()
    left = sum(
        float(count)
        for count in re.findall(r'^traefik_open_connections\{entrypoint="https?",protocol="TCP"\} (\S+)', figures, re.M)
    )
    if not left or time.monotonic() > end:
        sys.exit(print(f"{left:.0f}"))
    time.sleep(0.5)
