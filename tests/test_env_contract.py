"""Every variable is documented, written to the host, and read there: nothing missing, nothing left over."""

import base64
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from auth_service.settings import AuthSettings
from berth import secrets as berth_secrets
from berth.backup.restore_scratch import _with_other_secrets
from berth.stack import former, needs
from shared import keys, settings
from shared.settings import CommonSettings, load_settings

ROOT = Path(__file__).parent.parent
ROLE = ROOT / "roles/environment"
# Given by `berth release`, or by role traefik, for one run of compose.
BY_THE_RUN = {"RELEASE", "COLOUR", "RESTART_POLICY", "TRAEFIK_PREFIX4", "TRAEFIK_PREFIX6"}
SERVICES = yaml.safe_load((ROOT / "docker-compose.prod.yml").read_text())["services"]


def settings_of(service: str) -> type[CommonSettings]:
    """Return the class in which the program of a service reads what it is told."""
    folder = Path(SERVICES[service]["build"]["dockerfile"]).parent
    module = importlib.import_module(f"{folder}.settings")
    own = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
    [found] = [each for each in own if isinstance(each, type) and issubclass(each, CommonSettings)]
    return found


# Of each service of folder services/ that gets secrets of its own; beat gets the worker's.
SETTINGS = {
    name: settings_of(name)
    for name, service in SERVICES.items()
    if service.get("build", {}).get("context") == "services"
    and f"/run/berth/secrets/{name}" in [volume["source"] for volume in service["volumes"]]
}


def load(path: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(path.stem.replace("-", "_"), str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


PRIVATE_KEY = keys.new_private_key()
PUBLIC_KEY = keys.public_key(PRIVATE_KEY)


def other(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    der, pkcs8 = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    return base64.b64encode(key.private_bytes(der, pkcs8, serialization.NoEncryption())).decode()


OTHERS = {
    "P-384": other(ec.generate_private_key(ec.SECP384R1())),
    "Ed25519": other(ed25519.Ed25519PrivateKey.generate()),
}
environment = load(ROLE / "filter_plugins/environment.py")
NEEDS = needs.read(yaml.safe_load((ROOT / "docker-compose.prod.yml").read_text()))
# Lines that an owner may add (berth_environment), since the compose file reads them.
OWNERS = {
    *("WEB_CONCURRENCY", "FLOWER_USER", "SIGN_IN_FAILURES_PER_NETWORK", "SIGN_UPS_PER_NETWORK"),
    *("MAILS_PER_NETWORK", "MAILS_PER_HOUR"),
}


def example() -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)='(.*)'$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def good() -> dict[str, str]:
    """Values that pass every check."""
    values = {name: "0123456789abcdef" * 4 if value == "replace-me" else value for name, value in example().items()}
    for name in ("BERTH_DOMAIN", "PUBLIC_URL", "IMAGE_PREFIX", "SMTP_HOST", "SMTP_USERNAME", "MAIL_FROM"):
        values[name] = values[name].replace("example.com", "berth.test")
    values = {name.upper(): "0123456789abcdef" * 4 for name in NEEDS.names} | values
    values |= {"JWT_PRIVATE_KEY": PRIVATE_KEY, "JWT_PUBLIC_KEYS": PUBLIC_KEY, "BERTH_SECRETS": NEEDS.line()}
    return values


EDGE = (ROOT / "roles/traefik/files/docker-compose.edge.yml").read_text()


def compose() -> str:
    return (ROOT / "docker-compose.prod.yml").read_text()


def read_by_compose() -> set[str]:
    return set(re.findall(r"\$\{([A-Z_0-9]+)", compose() + EDGE))


def secrets_of(**changes: str) -> dict[str, dict[str, str]]:
    return dict(berth_secrets.secrets({**good(), **changes}))


def test_the_example_documents_exactly_what_the_role_writes() -> None:
    own = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_environment_own"]
    written = environment.environment_lines(own, compose(), {}, {})
    assert set(example()) - OWNERS <= set(written)
    # What a service gets that was added later, its labels say.
    assert (set(written) | OWNERS) - set(example()) - {"BERTH_SECRETS"} <= {name.upper() for name in NEEDS.names}
    assert {*own, *OWNERS} <= set(example())


def test_every_group_of_the_example_has_an_explanation() -> None:
    blocks = (ROOT / ".env.example").read_text().split("\n\n")
    assert [block for block in blocks if not block.startswith("#")] == []


def test_compose_reads_only_variables_that_are_written() -> None:
    assert read_by_compose() - BY_THE_RUN <= set(example())


class Noticed(dict[str, str]):
    """A mapping that remembers which of its values were asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)


def test_every_variable_has_a_reader() -> None:
    values = Noticed(good())
    berth_secrets.secrets(values)
    by_compose = read_by_compose()
    # The name of the site is for people who open the file.
    assert set(example()) - values.names - by_compose == {"BERTH_DOMAIN"}


@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_gets_every_secret_it_needs_and_none_it_does_not_know(service: str) -> None:
    fields = SETTINGS[service].model_fields
    required = {name for name, field in fields.items() if field.is_required()}
    given = set(secrets_of()[service])
    assert required - given - set(environment_of(service)) == set()
    assert given <= set(fields)


@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_is_told_nothing_it_does_not_know(service: str) -> None:
    known = set(SETTINGS[service].model_fields) | {"web_concurrency"}
    assert set(environment_of(service)) <= known


def environment_of(service: str) -> list[str]:
    return [name.lower() for name in SERVICES[service]["environment"]]


def test_the_example_values_are_all_refused() -> None:
    problems = "\n".join(environment.environment_problems({**example(), "BERTH_SECRETS": NEEDS.line()}))
    for name, value in example().items():
        if value == "replace-me":
            # Public keys are derived; those of yesterday have a variable.
            known_as = "jwt_previous_keys" if name == "JWT_PUBLIC_KEYS" else name.lower()
            assert f"vault_{known_as} in inventories/" in problems
    assert "environment_domain " in problems


def test_good_values_are_accepted() -> None:
    assert environment.environment_problems(good()) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BERTH_DOMAIN", "", "environment_domain (in this project: berth_domain"),
        ("BERTH_DOMAIN", "https://berth.test", "begins with a scheme: write berth.test"),
        ("JWT_PRIVATE_KEY", "", "is missing. Generate one: openssl genpkey"),
        ("JWT_PRIVATE_KEY", "", "ansible-playbook ansible/new_environment.yml -e env=<env>"),
        ("JWT_PRIVATE_KEY", "0123456789abcdef" * 2, "is no key: it must be an EC private key on the curve P-256"),
        ("JWT_PRIVATE_KEY", PUBLIC_KEY, "holds a public key: it must be an EC private key on the curve P-256"),
        ("JWT_PRIVATE_KEY", OTHERS["P-384"], "holds a private key of another kind (secp384r1)"),
        ("JWT_PRIVATE_KEY", OTHERS["Ed25519"], "holds a private key of another kind (Ed25519PrivateKey)"),
        ("JWT_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----", "is PEM: it must be an EC private key"),
        ("JWT_PUBLIC_KEYS", f"{PUBLIC_KEY},{PRIVATE_KEY}", "vault_jwt_previous_keys in"),
        ("JWT_PUBLIC_KEYS", f"{PUBLIC_KEY},{OTHERS['P-384']}", "of another kind (secp384r1)"),
        ("JWT_SECRET_KEY", "", "openssl rand -hex 32"),
        ("JWT_SECRET_KEY", "0123456789abcdef"[:31], "at least 32 characters"),
        ("REDIS_ADMIN_PASSWORD", "it's a long password", "contains a quote"),
        ("SMTP_PASSWORD", "first\nsecond", "a line break"),
        ("MONGO_URI", "localhost:27017", "must read mongodb://"),
        ("REDIS_URI", "http://cache", "must read redis://"),
        ("PUBLIC_URL", "http://berth.test", "must be https://"),
        ("MAIL_FROM", "nobody", "holds no mail address"),
        ("MONGO_KEYFILE", "not base64!", "base64"),
        ("TRUSTED_PROXIES", "203.0.113.0/24,the.cdn", "(in this project: berth_trusted_proxies"),
        ("TRACES_ENDPOINT", "collector:4318", "environment_traces_endpoint (in this project: berth_traces_endpoint"),
        ("TRACES_ENDPOINT", "https://me:token@collector.berth.test/v1/traces", "without a password"),
        ("TRACES_RATIO", "10", "a number from 0 to 1"),
    ],
    # The beginning of a key is the same in each process.
    ids=lambda text: text[:20],
)
def test_a_bad_value_is_named_with_its_remedy(name: str, value: str, said: str) -> None:
    problems = environment.environment_problems({**good(), name: value})
    assert len(problems) == 1
    assert said in problems[0]
    assert not value or len(value) < 90 or value not in problems[0]


def test_public_keys_are_derived_and_those_of_yesterday_follow() -> None:
    yesterday, before = keys.new_private_key(), keys.public_key(keys.new_private_key())
    derived = environment.environment_public_keys([PRIVATE_KEY, f"{yesterday}, {before},{PRIVATE_KEY}"])
    assert derived.split(",") == [PUBLIC_KEY, keys.public_key(yesterday), before]
    # What cannot be right has a sentence; the private key's own problem is not told twice.
    assert environment.environment_public_keys(["", ""]) == ""
    assert environment.environment_public_keys(["replace-me", ""]) == ""
    assert environment.environment_public_keys([PRIVATE_KEY, "nonsense"]) == f"{PUBLIC_KEY},nonsense"


def test_what_signs_is_handed_to_auth_service_alone() -> None:
    handed = secrets_of()
    holders = {
        name: {service for service, files in handed.items() if name in files}
        for name in ("jwt_private_key", "jwt_secret_key", "jwt_previous_secret_keys", "jwt_public_keys")
    }
    assert holders.pop("jwt_public_keys") >= {"auth_service", "user_service"}
    assert [services for services in holders.values() if services != {"auth_service"}] == []


def test_a_managed_database_needs_no_local_passwords() -> None:
    managed = {**good(), "MONGO_URI": "mongodb+srv://me:pw@cluster.berth.test/", "MONGO_ROOT_PASSWORD": ""}
    assert environment.environment_problems(managed) == []


def test_a_restored_auth_service_starts_with_keys_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = "".join(f"{name}='{value}'\n" for name, value in good().items())
    (tmp_path / ".env").write_text(_with_other_secrets(written))
    handed = berth_secrets.secrets(berth_secrets.read_env(tmp_path / ".env"))["auth_service"]
    for name, value in handed.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setattr(settings, "SECRETS_DIRECTORY", tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "dev")
    started = load_settings(AuthSettings)
    assert PUBLIC_KEY not in started.jwt_public_keys


def test_passwords_are_encoded_in_addresses() -> None:
    secrets = secrets_of(MONGO_AUTH_SERVICE_PASSWORD="a/b@c:d", REDIS_AUTH_SERVICE_PASSWORD="a/b@c:d")["auth_service"]
    account = f"auth_service~{hashlib.sha256(b'a/b@c:d').hexdigest()[:8]}"
    assert secrets["mongo_uri"] == f"mongodb://{account}:a%2Fb%40c%3Ad@mongo:27017/auth_db?directConnection=true"
    assert secrets["redis_uri"] == "redis://auth_service:a%2Fb%40c%3Ad@redis:6379/0"


def test_a_managed_database_gets_the_name_of_each_services_own() -> None:
    secrets = secrets_of(
        MONGO_URI="mongodb://me:pw@db.berth.test:27017/?tls=true", REDIS_URI="rediss://x:y@cache:6380/0"
    )
    assert (
        secrets["user_service"]["mongo_uri"] == "mongodb://me:pw@db.berth.test:27017/user_db?tls=true&authSource=admin"
    )
    assert secrets["celery_worker"]["redis_uri"] == "rediss://x:y@cache:6380/0"
    assert not {"mongo", "redis"} & set(secrets)


def test_redis_users_are_kept_as_digests() -> None:
    users = secrets_of(REDIS_ADMIN_PASSWORD="a long password of mine")["redis"]["users.acl"]
    assert "a long password of mine" not in users
    assert users.startswith("user default off ~* &* +@all\n")


def test_monitoring_opens_redis_figures_with_a_password_that_is_in_no_other_place() -> None:
    values = good()
    shown = berth_secrets.secrets(values)
    (password,) = json.loads(shown["monitoring"]["redis_passwords.json"]).values()
    assert password not in values.values()
    assert f"user monitoring on #{hashlib.sha256(password.encode()).hexdigest()} " in shown["redis"]["users.acl"]
    assert "redis_passwords.json" not in secrets_of(REDIS_URI="rediss://x:y@cache:6380/0")["monitoring"]


def test_a_line_of_another_form_is_refused_by_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("A='b'\nB=c\n")
    assert berth_secrets.main(["check", str(tmp_path / ".env")]) == 1
    assert "line 2 is not of the form" in capsys.readouterr().err


def test_the_user_ids_are_those_of_the_containers() -> None:
    owners = berth_secrets.uids(NEEDS)
    # Monitoring has a compose file of its own, which uses one number for all of it.
    users = {name: service["user"] for name, service in SERVICES.items() if name in owners}
    users["monitoring"] = "{0}:{0}".format(
        yaml.safe_load((ROOT / "roles/monitoring/vars/main/main.yml").read_text())["_monitoring_uid"]
    )
    assert {name: f"{uid}:{uid}" for name, uid in owners.items()} == users
    assert {one["user"] for one in yaml.safe_load(EDGE)["services"].values()} == {"10000:10000"}


def test_an_env_from_before_the_description_gives_each_service_what_it_reads() -> None:
    former_env = {name: value for name, value in good().items() if name != "BERTH_SECRETS"}
    handed, before = secrets_of(), berth_secrets.secrets(former_env)
    # An application that has been given more services has more.
    services = former.NEEDS.holders.keys() - {"mongo", "redis"}
    assert {name: before[name] for name in services} == {name: handed[name] for name in services}
    assert before["redis"]["redis_admin_password"] == handed["redis"]["redis_admin_password"]
    assert before["mongo"].items() - {("users.json", before["mongo"]["users.json"])} <= handed["mongo"].items()
    assert berth_secrets.uids(former.NEEDS).items() <= berth_secrets.uids(NEEDS).items()


def test_redis_rights_are_those_the_services_are_tested_with() -> None:
    tested = (ROOT / "services/tests_integration/users.acl").read_text()
    rights = dict(re.findall(r"^user (\S+) on >\S+ resetkeys (.+)$", tested, re.MULTILINE))
    assert len(rights) > 2
    assert rights.items() <= NEEDS.rights.items()


def test_a_new_environment_has_every_secret_that_a_role_reads() -> None:
    plays = yaml.safe_load((ROOT / "ansible/new_environment.yml").read_text())
    made = set(plays[0]["vars"]["own_secrets"]) | {f"vault_{name}" for name in NEEDS.variables}
    read = {
        name
        for file in ROOT.glob("roles/*/defaults/main.yml")
        for line in file.read_text().splitlines()
        if not line.lstrip().startswith("#")
        for name in re.findall(r"\bvault_\w+", line)
    }
    # It stays where images are built.
    own = {"vault_signing_key"}
    assert made == read | own | {f"vault_{name}" for name in NEEDS.variables}
