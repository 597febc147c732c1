"""Compare the responses of the edges at two addresses. Arguments: the site's name, and the two addresses.

Exit status 0: they are the same. 1: they differ; standard output shows both.
"""

import hashlib
import http.client
import socket
import ssl
import sys

# The certificate was checked before; here only the response is compared.
trusting = ssl._create_unverified_context()  # noqa: S323


def answer(name: str, address: str) -> str:
    """Return status and checksum of the front page from the edge at this address."""
    connection = http.client.HTTPSConnection(name, timeout=10)
    try:
        plain = socket.create_connection((address, 443), timeout=10)
        connection.sock = trusting.wrap_socket(plain, server_hostname=name)
        connection.request("GET", "/")
        response = connection.getresponse()
        return f"{response.status} {hashlib.sha256(response.read()).hexdigest()[:12]}"
    except (OSError, http.client.HTTPException) as error:
        return f"nothing ({error})"
    finally:
        connection.close()


name, *addresses = sys.argv[1:]
answers = {address: answer(name, address) for address in addresses}
print(", ".join(f"{address} answers {found}" for address, found in answers.items()))
sys.exit(len(set(answers.values())) != 1)
