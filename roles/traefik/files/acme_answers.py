"""Ask for an ACME directory: argument 1 its address, standard input the PEM of a private authority or nothing.

Exit status 0: it is an ACME directory. 1: it is not or does not answer; standard output says why.
"""

import json
import ssl
import sys
import urllib.request

pem = sys.stdin.read().strip()
try:
    context = ssl.create_default_context(cadata=pem or None)
    # A host with no authorities yet (no package ca-certificates) can only see whether somebody answers.
    if not context.cert_store_stats()["x509_ca"] and not ssl.create_default_context().get_ca_certs():
        context = ssl._create_unverified_context()  # noqa: S323 - asked whether, not what
    with urllib.request.urlopen(sys.argv[1], timeout=10, context=context) as answer:  # noqa: S310 - the operator's address
        directory = json.load(answer)
    if "newOrder" not in directory:
        sys.exit(print("it answers, but not with an ACME directory") or 1)
except (OSError, ValueError) as error:
    sys.exit(print(getattr(error, "reason", error)) or 1)
