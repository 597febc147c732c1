"""Wait until an edge has no connections, then stop it and remove its container.

Arguments: container, URL of its metrics, maximum seconds to wait, seconds for requests that are then still running.
Metrics do not count HTTP/3 connections, and the edge cuts them when it stops. An idle one loses nothing, so the edge
is stopped while no datagrams arrive; after the maximum time, a short pause is enough.
"""

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

# Seconds without a datagram after which no request over HTTP/3 is running; after the maximum time, hardly any.
QUIET_SECONDS, SHORT_SECONDS = 5, 0.2
# How long to wait for a short pause after the maximum time.
MORE_SECONDS = 15

container, address, seconds, grace = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
process = subprocess.check_output(["docker", "inspect", "--format={{.State.Pid}}", container], text=True).strip()


def open_connections() -> float:
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - the role's own address
        metrics = answer.read().decode()
    mine = r'^traefik_open_connections\{entrypoint="https?",protocol="TCP"\} (\S+)'
    return sum(float(count) for count in re.findall(mine, metrics, re.M))


def datagrams() -> int:
    """Return the number of UDP datagrams that the container has received."""
    net = Path(f"/proc/{process}/net")
    plain = [line.split()[1] for line in (net / "snmp").read_text().splitlines() if re.match(r"Udp: \d", line)]
    # A kernel without IPv6 has no such file.
    six = (net / "snmp6").read_text() if (net / "snmp6").exists() else ""
    return sum(map(int, plain + re.findall(r"^Udp6InDatagrams\s+(\d+)", six, re.M)))


end = time.monotonic() + seconds
count, heard = 0, float("-inf")
while (now := time.monotonic()) < end + MORE_SECONDS:
    if (new := datagrams()) != count:
        count, heard = new, now
    if now - heard >= (QUIET_SECONDS if now < end else SHORT_SECONDS) and (now > end or not open_connections()):
        break
    time.sleep(0.25 if now < end else 0.02)
subprocess.run(["docker", "stop", "--time", grace, container], check=True, stdout=subprocess.DEVNULL)
subprocess.run(["docker", "rm", container], check=True, stdout=subprocess.DEVNULL)
