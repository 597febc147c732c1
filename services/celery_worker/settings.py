"""What the worker, beat and flower are told."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from shared import rules
from shared.settings import CommonSettings, keeps


class WorkerSettings(CommonSettings):
    smtp_host: Annotated[str, keeps(rules.host_problem)] = "localhost"
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_security: Literal["none", "starttls", "tls"] = "starttls"
    mail_from: Annotated[str, keeps(rules.sender_problem)] = "Berth <no-reply@localhost>"
    worker_concurrency: int = 2
    # Where the worker answers Prometheus; its networks decide who reaches it.
    metrics_port: int = 8000
    # Longer than any message can still be in the queue: a record that is gone protects from nothing.
    keep_deliveries_days: int = 30
    # The login of flower, which does not start without a password. Nobody else reads them.
    flower_user: str = "operator"
    flower_password: SecretStr = SecretStr("")
