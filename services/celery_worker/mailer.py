"""Mail over SMTP."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from html import escape
from typing import Protocol

from celery_worker.settings import WorkerSettings

SMTP_SECONDS = 15


class MailRefused(Exception):
    """The mail server will never take this message, however often it is asked."""


class Mailer(Protocol):
    def send(self, message: EmailMessage) -> None: ...


class SmtpMailer:
    """Sends through the server that the settings name."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def send(self, message: EmailMessage) -> None:
        """Hand the message over. Raises MailRefused for good, or an OSError (smtplib's are) for now."""
        with self._connection() as connection:
            try:
                connection.send_message(message)
            except smtplib.SMTPRecipientsRefused as error:
                codes = [code for code, _ in error.recipients.values()]
                if all(code >= 500 for code in codes):
                    raise MailRefused(f"recipient refused with {codes}") from error
                raise
            except smtplib.SMTPDataError as error:
                if error.smtp_code >= 500:
                    raise MailRefused(f"message refused with {error.smtp_code}") from error
                raise

    @contextmanager
    def _connection(self) -> Iterator[smtplib.SMTP]:
        settings = self._settings
        context = ssl.create_default_context()
        host, port = settings.smtp_host, settings.smtp_port
        connection = (
            smtplib.SMTP_SSL(host, port, timeout=SMTP_SECONDS, context=context)
            if settings.smtp_security == "tls"
            else smtplib.SMTP(host, port, timeout=SMTP_SECONDS)
        )
        with connection:
            if settings.smtp_security == "starttls":
                connection.starttls(context=context)
            if settings.smtp_username:
                connection.login(settings.smtp_username, settings.smtp_password.get_secret_value())
            yield connection


def verification_mail(sender: str, site: str, message_id: str, email: str, link: str) -> EmailMessage:
    """The mail that asks for a click."""
    # Lines as long as SMTP allows, so that the link is not broken up by an encoding.
    message = EmailMessage(SMTP.clone(max_line_length=998))
    message["From"] = sender
    message["To"] = email
    message["Subject"] = "Verify your email address"
    message["Date"] = formatdate()
    # The same id on every attempt: a mail server that saw it before can drop the double.
    message["Message-ID"] = f"<{message_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"Welcome!\n\nOpen this link to verify your email address:\n\n{link}\n\n"
        f"It works for 24 hours. If you did not sign up at {site}, ignore this mail.\n"
    )
    url, place = escape(link, quote=True), escape(site)
    message.add_alternative(
        f'<!doctype html><html lang="en"><body><p>Welcome!</p>'
        f'<p><a href="{url}">Verify your email address</a></p>'
        f"<p>The link works for 24 hours. If you did not sign up at {place}, ignore this mail.</p>"
        f"</body></html>\n",
        subtype="html",
    )
    return message
