"""See that the edges at two addresses answer alike. Arguments: the site's name, an address, the other one.

Exit status 0: they do. 1: they do not; standard output says what each answered.
"""

import hashlib
import http.client
import socket
import ssl
import sys

# Whose certificate it is was asked before; here only what is behind it.
trusting = ssl._create_unverified_context()  # noqa: S323


def answer(name: str, address: str) -> str:
    """Return the status of the front page and a sum of what it says, as the edge at this address gives it."""
    connection = http.client.HTTPSConnection(name, timeout=10)
    try:
        plain = socket.create_connection((address, 443), timeout=10)
        connection.sock = trusting.wrap_socket(plain, server_hostname=name)
        connection.request("GET", "/")
        said = connection.getresponse()
        return f"{said.status} {hashlib.sha256(said.read()).hexdigest()[:12]}"
    except (OSError, http.client.HTTPException) as error:
        return f"nothing ({error})"
    finally:
        connection.close()


name, *addresses = sys.argv[1:]
answers = {address: answer(name, address) for address in addresses}
print(", ".join(f"{address} answers {said}" for address, said in answers.items()))
sys.exit(len(set(answers.values())) != 1)
