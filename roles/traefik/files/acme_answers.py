"""Fetch an ACME directory: argument 1 is its URL, standard input the PEM certificate of a private CA, or empty.

Exit status 0: it is an ACME directory. 1: it is not, or does not answer; the reason is on standard output.
"""

import json
import ssl
import sys
import urllib.request

pem = sys.stdin.read().strip()
try:
    context = ssl.create_default_context(cadata=pem or None)
    # A host without CA certificates yet (no package ca-certificates) cannot verify the server.
    if not context.cert_store_stats()["x509_ca"] and not ssl.create_default_context().get_ca_certs():
        context = ssl._create_unverified_context()  # noqa: S323 - only reachability matters
    with urllib.request.urlopen(sys.argv[1], timeout=10, context=context) as answer:  # noqa: S310 - the operator's address
        directory = json.load(answer)
    if "newOrder" not in directory:
        sys.exit(print("it answers, but not with an ACME directory") or 1)
except (OSError, ValueError) as error:
    sys.exit(print(getattr(error, "reason", error)) or 1)
