"""Which secrets a stack needs, as labels say it: what follows from them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from berth.host.refused import Refused
from berth.stack.needs import Holder, from_line, read


def stack(secrets: dict[str, str] | None = None, **services: dict[str, Any]) -> dict[str, Any]:
    return {"services": services, "x-berth": {"secrets": secrets or {}}}


def service(user: str = "10010:10010", **labels: str) -> dict[str, Any]:
    return {"image": "x", "user": user, "labels": {f"berth.{name}": value for name, value in labels.items()}}


def test_a_service_gets_files_accounts_and_passwords() -> None:
    needs = read(
        stack(
            {"stripe_key": "given", "public": "public_keys_of signing previous", "signing": "p256"},
            orders=service(secrets="stripe_key, public", mongo="orders_db", redis="~order:*   +get"),
            view=service("10010:10010", mongo="@orders", redis="@orders"),
            web={"image": "y", "labels": ["berth.route=/"]},
        )
    )
    assert dict(needs.holders) == {
        "orders": Holder(10010, ("stripe_key", "public"), "orders", "orders"),
        "view": Holder(10010, (), "orders", "orders"),
    }
    assert needs.files()["orders"] == ("stripe_key", "public", "mongo_uri", "redis_uri")
    assert (needs.databases, needs.rights) == ({"orders": "orders_db"}, {"orders": "~order:* +get"})
    assert needs.names == ["stripe_key", "public", "mongo_orders_password", "redis_orders_password"]
    # Operators keep what the public keys are derived from.
    assert needs.variables == [
        *("stripe_key", "signing", "previous", "mongo_orders_password", "redis_orders_password"),
    ]
    kinds = {name: needs.kind(name) for name in ("stripe_key", "signing", "previous", "mongo_orders_password")}
    assert kinds == {"stripe_key": "given", "signing": "p256", "previous": "random", "mongo_orders_password": "random"}


def test_the_databases_of_the_platform_have_secrets_without_a_label() -> None:
    needs = read(stack(mongo={"user": "999:999"}, redis={"user": "999:999"}))
    assert needs.names == ["mongo_root_password", "mongo_keyfile", "redis_admin_password"]
    assert needs.kind("mongo_keyfile") == "keyfile"


def test_labels_may_be_a_list() -> None:
    listed = {"image": "x", "user": "10010", "labels": ["berth.secrets=stripe_key", "other"]}
    assert read(stack(orders=listed)).holders == {"orders": Holder(10010, ("stripe_key",))}


def test_it_is_one_line_that_dotenv_can_hold() -> None:
    needs = read(stack({"a": "hex"}, orders=service(secrets="a", mongo="b", redis="~x:* %R~y &c +@all -@dangerous")))
    line = needs.line()
    assert not {"'", "\\", "\n"} & set(line)
    assert from_line(line) == needs
    for broken in ("", "[]", '{"holders": {"a": {}}}', '{"holders": {}, "more": 1}'):
        with pytest.raises(ValueError, match="no description of secrets"):
            from_line(broken)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (stack(a=service(secrets="Key")), 'berth.secrets of service a is "Key": a secret has a name of lower-case'),
        (stack(a=service(secrets="mongo_uri")), "mongo_uri is written for services with berth.mongo."),
        (stack(a=service(secrets="${KEY}")), "berth.secrets of service a has a variable"),
        (stack(a=service(mongo="admin")), 'berth.mongo of service a is "admin": write the name of a database'),
        (stack(a=service(redis="~a:* 'x")), "berth.redis of service a is \"~a:* 'x\": write rules of Redis's ACL"),
        (stack(a=service(redis="~ä:*")), "write rules of Redis's ACL"),
        (
            stack(a=service(mongo="@b")),
            "berth.mongo of service a is @b, but b is no service with an account of its own.",
        ),
        (stack(a=service(mongo="@b"), b=service(mongo="@a")), "is @b, but b is no service with an account"),
        (stack(a=service("", secrets="k")), "berth.secrets of service a needs a numeric user"),
        (stack(a=service("root", secrets="k")), "needs a numeric user"),
        (stack(a=service("0:0", mongo="k")), "berth.mongo of service a needs a numeric user, not root"),
        (stack(a=service("10005:10005", secrets="k")), "user of service a is 10005, which is that of monitoring"),
        (stack({"k": "hexa"}, a=service(secrets="k")), "x-berth.secrets: k is 'hexa'. Known: random, hex"),
        (stack({"k": "public_keys_of"}, a=service(secrets="k")), "k is 'public_keys_of'. Known"),
        (stack({"other": "hex"}, a=service(secrets="k")), "x-berth.secrets has other, which no label"),
        (
            {"services": {"a-b": service(mongo="x"), "a_b": service(mongo="y")}},
            "berth.mongo of service a_b has the password mongo_a_b_password, which is one of a-b already.",
        ),
        (
            stack(a=service(mongo="x"), b=service(secrets="mongo_a_password")),
            "berth.mongo of service a has the password mongo_a_password, which is one of b already.",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_service_and_label(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as refused:
        read(given)
    assert says in refused.value.reason
    assert refused.value.reason.startswith("docker-compose.prod.yml: ")
