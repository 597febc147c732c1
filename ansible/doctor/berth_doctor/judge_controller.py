"""Judge the controller: inventory, vault, secrets, key, images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from berth_doctor.asked import is_open
from berth_doctor.lines import ARCHITECTURES, MAIN, VAULT, Facts, Line, ok, short, skipped, warning, wrong

# Required variable -> its name in the facts.
PLACES = {
    "ansible_host": "address",
    "berth_domain": "domain",
    "berth_smtp_host": "smtp_host",
    "berth_mail_from": "mail_from",
    "berth_operator_mail": "operator_mail",
}
REQUIRED = ("ansible_host", "berth_domain", "berth_smtp_host", "berth_mail_from")
VAULT_ERROR = re.compile(r"decrypt|vault secrets|vault password", re.I)


def inventory(facts: Facts) -> Iterator[Line]:
    """Judge placeholders of the example, and files and values that cannot be read."""
    subject, values, unread = "Inventory", facts["values"], facts.get("unread", {})
    for path, reason in unread.items():
        if not VAULT_ERROR.search(reason):
            seen = f"{path} cannot be read: {short(reason)}"
            yield wrong("inventory", subject, seen, "Correct the file that the message names.")
    for expression, reason in facts.get("errors", {}).items():
        if not VAULT_ERROR.search(reason):
            seen = f"{expression} cannot be read: {short(reason)}"
            yield wrong("inventory", subject, seen, f"Correct it in {MAIN} or {VAULT}.")
    # What ansible/preflight.yml would refuse; its messages name the remedy.
    problems = [] if closed_vaults(facts) else values.get("variable_problems") or []
    for one in problems:
        yield wrong("inventory", "Variables", short(one), "All other playbooks refuse to run until this is corrected.")
    left = [variable for variable, name in PLACES.items() if is_open(values.get(name))]
    left += ["berth_admins"] if "<" in json.dumps(values.get("admins") or []) else []
    missing = [variable for variable in REQUIRED if not values.get(PLACES[variable])]
    missing += [] if values.get("admins") else ["berth_admins"]
    remedy = f"Fill in hosts.yml and {MAIN} in {facts['controller']['inventory']}."
    if left:
        yield wrong("inventory", subject, f"still the example's placeholder: {', '.join(left)}", remedy)
    if missing:
        yield wrong("inventory", subject, f"empty or missing: {', '.join(missing)}", remedy)
    if not left and not missing and not unread and not problems:
        yield ok("inventory", subject, "every required variable is set")


def vault(facts: Facts) -> Iterator[Line]:
    found = facts["controller"]["vault"]
    subject, file = "Vault password", found["password_file"]
    closed = closed_vaults(facts)
    if closed and not found["exists"]:
        yield wrong(
            "vault",
            subject,
            f"{', '.join(closed)} cannot be decrypted: there is no {file}",
            f"Restore {file} from your copy, or enter the password at the prompt.",
        )
    elif closed:
        yield wrong(
            "vault",
            subject,
            f"{file} does not open {', '.join(closed)}",
            "Write the password that the secrets were encrypted with into it. If it is lost, so are the secrets: "
            "remove vault.yml, and generate new ones with ansible/new_environment.yml.",
        )
    elif found["exists"] and found["mode"] & 0o077:
        yield warning(
            "vault",
            subject,
            f"other users of the controller can read {file} (mode {found['mode']:04o})",
            f"chmod 0600 {file}",
        )
    elif found["encrypted"]:
        yield ok("vault", subject, f"opens {', '.join(found['encrypted'])}")
    else:
        yield skipped("vault", subject, "no file of this inventory is encrypted")


def closed_vaults(facts: Facts) -> list[str]:
    """Return the files that the vault password does not open; "the secrets" if only single values are encrypted."""
    files = [path for path, reason in facts.get("unread", {}).items() if VAULT_ERROR.search(reason)]
    inner = any(VAULT_ERROR.search(reason) for reason in facts.get("errors", {}).values())
    return files or ["the secrets"] * inner


def secrets(facts: Facts) -> Iterator[Line]:
    """Judge the values by the preflight checks of roles environment and backup."""
    problems = facts["values"].get("environment_problems")
    if problems is None or closed_vaults(facts):
        yield skipped("secrets", "Secrets and .env", "not known until the vault and the inventory can be read")
        return
    # Placeholders are already named in the inventory's line.
    values = facts["values"]
    open_ = [name for name, place in PLACES.items() if is_open(values.get(place)) or not values.get(place)]
    open_ += ["environment_public_url"] if "berth_domain" in open_ else []
    problems = [one for one in problems if not any(name in one for name in open_)]
    lost = [one for one in problems if re.search(r"vault_\w+", one)]
    if len(lost) > 2:
        names_of = sorted(set(re.findall(r"vault_\w+", " ".join(lost))))
        yield wrong(
            "secrets",
            "Secrets and .env",
            f"missing, a placeholder or too short: {', '.join(names_of)}",
            "Generate them all: ansible-playbook ansible/new_environment.yml -e env=<env>; or ansible-vault edit "
            f"inventories/<env>/{VAULT}",
        )
        problems = [one for one in problems if one not in lost]
    for one in problems:
        seen, _, remedy = one.partition(". ")
        yield wrong("secrets", "Secrets and .env", seen, remedy or "Correct it.")
    if not problems and not lost:
        yield ok("secrets", "Secrets and .env", "complete and valid")
    for one in facts["values"].get("backup_problems") or []:
        yield wrong("secrets", "Backup targets", one, f"Correct it in {MAIN} or {VAULT}.")


def key(facts: Facts) -> Iterator[Line]:
    found = facts["controller"]["key"]
    if found["file"] and not found["exists"]:
        yield wrong(
            "key",
            "SSH key",
            f"{found['file']} does not exist",
            "Correct ansible_ssh_private_key_file, or generate the key: ssh-keygen -t ed25519",
        )
    elif found["file"] and found["mode"] & 0o077:
        yield wrong(
            "key",
            "SSH key",
            f"other users can read {found['file']} (mode {found['mode']:04o}), so ssh does not use it",
            f"chmod 0600 {found['file']}",
        )
    elif found["file"]:
        yield ok("key", "SSH key", found["file"])
    elif found["agent"] or found["own"]:
        yield ok("key", "SSH key", "the agent's" if found["agent"] else ", ".join(found["own"]))
    elif facts["reached"].get("ok"):
        yield ok("key", "SSH key", "from ssh's configuration")
    else:
        yield wrong(
            "key",
            "SSH key",
            "there is no key in ~/.ssh, and none in an agent",
            "Generate one (ssh-keygen -t ed25519); add its public key at the provider and to berth_admins.",
        )


def images(facts: Facts) -> Iterator[Line]:
    """Judge whether the controller has the images that it sends, for the host's architecture."""
    values, found = facts["values"], facts["controller"].get("images")
    if values.get("transport") != "archive":
        return
    if found is None:
        yield skipped("images", "Images", "not known until the inventory can be read")
        return
    remedy = "Build or pull them on the controller: make images"
    if not found["ok"]:
        yield wrong(
            "images",
            "Images",
            f"the controller's Docker does not answer ({short(found['said'])})",
            "Start Docker, or set stack_image_transport to registry or source.",
        )
        return
    inspected = json.loads(found["inspected"])
    if found["absent"]:
        yield wrong("images", "Images", f"the controller lacks {', '.join(found['absent'])}", remedy)
    else:
        yield ok("images", "Images", f"the controller has all {len(inspected)}")
    if found["stand_ins"] and not values.get("stand_in_images"):
        yield wrong(
            "images",
            "Images",
            f"for demo and tests only: {', '.join(found['stand_ins'])}",
            "make images IMAGES=registry",
        )
    if host := facts.get("host"):
        wanted = ARCHITECTURES.get(host["system"]["architecture"], host["system"]["architecture"])
        others = sorted({one["Architecture"] for one in inspected} - {wanted})
        if others:
            yield wrong(
                "images",
                "Images",
                f"the images are for {', '.join(others)}, the host is {wanted}",
                f"Build them for it: make images PLATFORM=linux/{wanted}; or set stack_image_transport to source: then "
                "the host builds them.",
            )
