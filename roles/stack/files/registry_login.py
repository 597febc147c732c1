"""Ask an image registry whether it accepts a login, as docker would, without an engine and without writing anything.

    python3 registry_login.py <JSON on standard input>: registry, username, password
Ends with 1 and the registry's words where it refuses the login. Where it cannot be asked, such as from behind an
engine's own proxy, that is no refusal: the pull will tell. Knows nothing but the standard library.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import sys
import urllib.parse
from pathlib import Path

SECONDS = 10
# Docker's own registry, which answers under names that the engine alone knows.
DEFAULT_REGISTRY = "docker.io"
LOCAL = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")


def trust(registry: str, folder: Path = Path("/etc/docker/certs.d")) -> ssl.SSLContext:
    """Return the authorities that Docker trusts for this registry."""
    context = ssl.create_default_context()
    for authority in sorted((folder / registry).glob("*.crt")):
        context.load_verify_locations(authority)
    return context


def ask(url: str, context: ssl.SSLContext, login: str = "") -> tuple[int, str, str]:
    """Return status, challenge and body of an answer. No redirect is followed: a login is for one address.

    Raises:
        OSError: there is no answer.
    """
    asked = urllib.parse.urlsplit(url)
    visit = (
        http.client.HTTPSConnection(asked.netloc, timeout=SECONDS, context=context)
        if asked.scheme == "https"
        else http.client.HTTPConnection(asked.netloc, timeout=SECONDS)
    )
    try:
        headers = {"Authorization": f"Basic {login}"} if login else {}
        visit.request("GET", f"{asked.path}?{asked.query}" if asked.query else asked.path, headers=headers)
        answer = visit.getresponse()
        return answer.status, answer.getheader("WWW-Authenticate", ""), answer.read(10000).decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error!r}") from error
    finally:
        visit.close()


def words_of(status: int, body: str) -> str:
    """Return what an answer says, as docker would print it."""
    try:
        read = json.loads(body)
        errors = [f"{error.get('code', '')}: {error.get('message', '')}" for error in read.get("errors", [])]
        said = "; ".join(errors) or read.get("details") or read.get("message") or ""
    except (ValueError, AttributeError, TypeError):
        said = ""
    return f"{status} {said or ' '.join(body.split())[:200]}".strip()


def refusal(registry: str, username: str, password: str) -> str:
    """Return the registry's words where it refuses a login; empty where it accepts it, or asks for none.

    Raises:
        OSError: it cannot be asked.
    """
    if registry == DEFAULT_REGISTRY:
        raise OSError("the engine alone knows where it answers")
    context = trust(registry)
    login = base64.b64encode(f"{username}:{password}".encode()).decode()
    url = f"https://{registry}/v2/"
    try:
        status, challenge, _ = ask(url, context)
    except OSError:
        if not LOCAL.fullmatch(registry):
            raise
        # As docker does with a registry on its own machine.
        url = f"http://{registry}/v2/"
        status, challenge, _ = ask(url, context)
    if status != 401:
        return ""
    if challenge.lower().startswith("bearer"):
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        url = fields.pop("realm", "")
        if not url.startswith("https://") and not LOCAL.fullmatch(urllib.parse.urlsplit(url).netloc):
            raise OSError(f"it sends logins to {url!r}")
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"account": username, **fields})
    elif not challenge.lower().startswith("basic"):
        raise OSError(f"it asks for {challenge!r}")
    status, _, body = ask(url, context, login)
    return words_of(status, body).replace(password, "***") if status in {401, 403} else ""


def main() -> None:
    plan = json.load(sys.stdin)
    try:
        said = refusal(plan["registry"], plan["username"], plan["password"])
    except (OSError, ValueError) as error:
        print(f"{plan['registry']} could not be asked: {error}".replace(plan["password"], "***"))
        return
    if said:
        raise SystemExit(said)


if __name__ == "__main__":
    main()
