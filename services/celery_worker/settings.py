"""What the worker, beat and flower are told."""

from typing import Literal

from pydantic import SecretStr

from shared.settings import CommonSettings


class WorkerSettings(CommonSettings):
    smtp_host: str = "localhost"
    smtp_port: int = 25
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_security: Literal["none", "starttls", "tls"] = "starttls"
    mail_from: str = "Berth <no-reply@localhost>"
    worker_concurrency: int = 2
    # Where the worker answers Prometheus; its networks decide who reaches it.
    metrics_port: int = 8000
    # Longer than any message can still be in the queue: a record that is gone protects from nothing.
    keep_deliveries_days: int = 30
    # "user:password"; only flower reads it, and does not start without.
    flower_basic_auth: SecretStr = SecretStr("")
