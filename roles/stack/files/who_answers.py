"""Ask the edge for a page and print which release answered. Arguments: the site's name, the edge's address, the path.

Exit status 0: with success. 1: with an error or not at all; standard output says why.
"""

import http.client
import socket
import ssl
import sys

name, address, path = sys.argv[1:]
# Whose certificate it is was asked when the edge was set up; here only who answers behind it.
trusting = ssl._create_unverified_context()  # noqa: S323
connection = http.client.HTTPSConnection(name, timeout=5)
try:
    connection.sock = trusting.wrap_socket(socket.create_connection((address, 443), timeout=5), server_hostname=name)
    connection.request("GET", path)
    answer = connection.getresponse()
except (OSError, http.client.HTTPException) as error:
    sys.exit(print(f"{path}: {error}") or 1)
print(answer.getheader("X-Berth-Release", "no release") if answer.status < 400 else f"{path}: status {answer.status}")
sys.exit(answer.status >= 400)
