"""What a host, a mail address, a URL or a key has to look like.

Services ask when they start, Ansible before it changes anything. Each rule returns what is wrong as the end of a
sentence that begins with a variable's name, or nothing where all is well. It never repeats a whole value, which may
hold a secret. An empty value breaks no rule. Standard library only: Ansible loads this file by its path.
"""

import ipaddress
import re
import unicodedata

_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# A name that certificates are issued for.
_DOMAIN = re.compile(rf"(?=.{{4,253}}\Z)({_LABEL}\.)+(?!\d+\Z){_LABEL}")
# A name that a resolver may know, such as a relay in the same network. A number at its end is an address that is none.
_NODE = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z)({_NODE}\.)*(?!\d+\Z){_NODE}", re.I)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_MAIL = re.compile(rf"(?P<local>{_ATOM}(\.{_ATOM})*)@(?P<host>[A-Za-z0-9.-]+)")
# A name without quotes has none of the characters that mean something in a header.
_SENDER = re.compile(r"""(?P<name>"[^"\\]*"|[^()<>@,;:\\"\[\]]*?)\s*<(?P<mail>[^<>\s]+)>""")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.I)
_EXAMPLE = re.compile(
    # Names set aside for documentation, wherever a name may stand: not goodexample.com, not example.com.br.
    r"(?<![a-z0-9-])example\.(com|net|org)(?![a-z0-9-]|\.[a-z0-9])|\.example(?![a-z0-9-]|\.[a-z0-9])"
    # Words that ask to be replaced: not exchangemedia.
    r"|(?<![a-z])((change|replace)[-_. ]?me[-_. ]?)+(?![a-z])",
    re.I,
)
_KEY_WORDS = ("change", "replace", "example", "insert", "secret", "default")
_SENDER_HINT = "Your site <no-reply@your-company.net>"
SIGNING_KEY_HINT = "a secret of your own with at least 32 characters; make one with `openssl rand -hex 32`"


def is_example(value: str) -> bool:
    """Tell whether a value was left as an example has it: example.com, change-me, <address of the server>."""
    return bool(_EXAMPLE.search(value)) or is_placeholder(value)


def is_placeholder(value: str) -> bool:
    """Tell whether a value as a whole stands between < and >, and is not a mail address that does."""
    return value.startswith("<") and value.endswith(">") and not _MAIL.fullmatch(value[1:-1])


def is_address(value: str) -> bool:
    """Tell whether a value is an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value


def punycode(name: str) -> str:
    """Return a name as DNS has it: müller.de is xn--mller-kva.de there."""
    labels = unicodedata.normalize("NFC", name.lower()).split(".")
    return ".".join(each if each.isascii() else "xn--" + each.encode("punycode").decode() for each in labels)


def _is_host(value: str) -> bool:
    return bool(_HOST.fullmatch(value)) or is_address(value)


def _host_within(value: str) -> str:
    """Return the host that was probably meant, without scheme, login, path, port, blanks and brackets."""
    value = re.sub(r"\s|^[a-zA-Z][a-zA-Z0-9+.-]*://", "", value.strip())
    value = re.split(r"[/?#]", value, maxsplit=1)[0].rpartition("@")[2]
    if found := re.match(r"\[([0-9a-fA-F:.]+)\]", value):
        return found[1]
    if value.count(":") == 1:
        value = value.partition(":")[0]
    return punycode(value.rstrip(".")) if not value.isascii() else value.rstrip(".")


def _what_is_more(value: str) -> str:
    """Say what a value has beside a host name, or nothing."""
    for fault, there in {
        "has a blank or a control character in it": bool(_BLANK.search(value)),
        "begins with a scheme": "://" in value,
        "has a path": "/" in value,
        "has a login": "@" in value,
        "has a port": bool(re.search(r"^[^:]*:\d*$|\]:\d*$", value)),
        "has brackets": value.startswith("["),
        "ends with a dot": value.endswith(".") and not value.endswith(".."),
        "has letters that DNS spells otherwise": not value.isascii(),
    }.items():
        if there:
            return fault
    return ""


def host_problem(value: str) -> str:
    """Say why a value is neither the name nor the address of a host."""
    if not value or _is_host(value):
        return ""
    fault, meant = _what_is_more(value) or "is not a host name", _host_within(value)
    port = ", and the port in the variable for ports" if fault == "has a port" else ""
    return (
        f"{fault}: write {meant}{port}" if _is_host(meant) else f"{fault}: write a name such as smtp.your-provider.net"
    )


def domain_problem(value: str) -> str:
    """Say why a value is not a name that certificates are issued for, written as every part of the site compares it."""
    if not value or _DOMAIN.fullmatch(value):
        return ""
    meant = _host_within(value)
    fault = _what_is_more(value)
    if "*" in meant:
        return "has a wildcard, which needs DNS-01: name each host instead"
    if is_address(meant):
        return "is an address: write a name that leads to it, such as www.your-company.net"
    if not fault and value != value.lower():
        fault = "has capital letters"
    meant = meant.lower()
    if _DOMAIN.fullmatch(meant):
        return f"{fault or 'is not a host name'}: write {meant}"
    if "_" in meant:
        return "has an underscore, which no authority issues a certificate for"
    if meant and "." not in meant:
        return f"{fault or 'is not a host name'}: it has no dot; write a public name such as www.your-company.net"
    return f"{fault or 'is not a host name'}: write a name such as www.your-company.net"


def port_problem(value: object) -> str:
    """Say why a value is no port."""
    text = str(value)
    if not text or (re.fullmatch(r"[1-9]\d{0,4}", text) and int(text) <= 65535):
        return ""
    return "is not a port: write a number from 1 to 65535"


def _is_mail(value: str) -> bool:
    found = _MAIL.fullmatch(value)
    return (
        found is not None and len(found["local"]) <= 64 and len(value) <= 254 and bool(_HOST.fullmatch(found["host"]))
    )


def mail_address(sender: str) -> str:
    """Return the address alone of "Name <address>" or of an address."""
    found = _SENDER.fullmatch(sender)
    return found["mail"] if found else sender


def sender_problem(value: str) -> str:
    """Say why a value is not one mail address, with a name or without, as a header From has it."""
    found = _SENDER.fullmatch(value)
    if not value or (not _CONTROL.search(value) and _is_mail(found["mail"] if found else value)):
        return ""
    unquoted = re.sub(r'"[^"]*"', "", value)
    if _CONTROL.search(value):
        return f"holds a line break or another control character: write one line, such as {_SENDER_HINT}"
    if "@" not in unquoted:
        return f"holds no mail address: write no-reply@your-company.net or {_SENDER_HINT}"
    if unquoted.count("@") > 1 or unquoted.count("<") > 1 or unquoted.count(">") > 1:
        return f"holds more than one address or bracket: one address sends, such as {_SENDER_HINT}"
    if re.fullmatch(r'[^<>"]*[()@,;:\\\[\]][^<>"]*<[^<>]+>', value):
        return (
            'has punctuation in its name: put the name in double quotes, "Your site, Inc." <no-reply@your-company.net>'
        )
    if not mail_address(value).isascii():
        return "has letters in its address that not every mail server takes: only the name before it may have them"
    return f"is not one mail address: write no-reply@your-company.net or {_SENDER_HINT}"


def recipients_problem(value: str) -> str:
    """Say why a value is not one or more mail addresses, divided by commas, without names."""
    parts = [each.strip(" ") for each in value.split(",")]
    if not value or all(_is_mail(each) for each in parts):
        return ""
    if _CONTROL.search(value):
        return "holds a line break or another control character: write you@your-company.net"
    if any(_is_mail(mail_address(each)) for each in parts if "<" in each):
        return "holds a name: write the address alone, you@your-company.net"
    return "is not a mail address: write you@your-company.net, or several divided by commas"


def url_problem(value: str, schemes: tuple[str, ...] = ("http", "https"), login: bool = False) -> str:
    """Say why a value cannot be called: scheme, host or port; or holds a password where that is not wanted."""
    if not value:
        return ""
    begins = " or ".join(f"{each}://" for each in schemes)
    if _BLANK.search(value):
        return "has a blank or a control character in it"
    found = _URL.fullmatch(value)
    if not found or found["scheme"].lower() not in schemes:
        return f"must begin with {begins}"
    user, _, place = found["place"].rpartition("@")
    if user and not login:
        return "holds a login: give it in the variables for it"
    parts = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::(\d*))?", place)
    if not parts or not parts[1] or not _is_host(parts[1].strip("[]")):
        return f"names no host: write {begins}, a name as DNS has it, and what follows"
    if parts[2] is not None and port_problem(parts[2] or "none"):
        return "has a port that is none: 1 to 65535"
    return ""


def collector_problem(value: str) -> str:
    """Say why no span would ever arrive at an address."""
    found = _URL.fullmatch(value)
    if not value or (not url_problem(value) and found and found["path"].strip("/") and not found["rest"]):
        return ""
    return (
        "must be where a collector takes OTLP over HTTP, with its path and without a password,"
        " such as https://collector.your-company.net:4318/v1/traces"
    )


def signing_key_problem(value: str) -> str:
    """Say why others could know a key: it is short, copied from an example, or typed with one finger."""
    guessable = len(value) < 32 or len(set(value)) < 8 or any(word in value.lower() for word in _KEY_WORDS)
    return f"must be {SIGNING_KEY_HINT}" if guessable else ""
