"""Mail over SMTP."""

import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from html import escape
from typing import Protocol

from celery_worker.settings import WorkerSettings
from shared.queue import Notice

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
    return _mail(
        sender,
        message_id,
        email,
        "Verify your email address",
        [
            "Welcome!",
            Link("Open this link and type the password that you chose, to verify your email address:", link),
            f"The link works for 24 hours. If you did not sign up at {site}, ignore this mail: nobody gets in with "
            "your address unless you open the link and type the password.",
        ],
    )


def notice_mail(sender: str, site: str, message_id: str, email: str, kind: Notice, link: str) -> EmailMessage:
    """A mail about something that happened to an account, or that somebody asked for."""
    subject, paragraphs = _notice(site, email, kind, link)
    return _mail(sender, message_id, email, subject, paragraphs)


@dataclass(frozen=True)
class Link:
    """A paragraph that ends with a link."""

    text: str
    url: str


def _notice(site: str, email: str, kind: Notice, link: str) -> tuple[str, list[str | Link]]:
    forgotten = f"{site}/forgotten"
    match kind:
        case "already_registered":
            return "You already have an account", [
                f"Somebody, maybe you, tried to sign up at {site} with {email}. This address has an account already.",
                Link("Sign in:", f"{site}/signin"),
                Link("Or choose a new password, if you do not know yours:", forgotten),
                "If it was not you, ignore this mail: nothing has changed.",
            ]
        case "reset":
            return "Choose a new password", [
                Link(f"Open this link to choose a new password for {email} at {site}:", link),
                "The link works once, for an hour. If you did not ask for it, ignore this mail: nothing has changed.",
            ]
        case "password_changed":
            return "Your password was changed", [
                f"The password of {email} at {site} was changed just now, and other devices were signed out.",
                Link("If it was not you, choose a new one at once:", forgotten),
            ]
        case "guessing":
            return "Somebody tries to sign in as you", [
                f"There were many attempts to sign in at {site} as {email} with a wrong password.",
                "They did not get in, and are slowed down. Where you have signed in before, you still can.",
                Link("If your password is short or used elsewhere, choose a new one:", forgotten),
            ]


def _mail(sender: str, message_id: str, email: str, subject: str, paragraphs: Sequence[str | Link]) -> EmailMessage:
    # Lines as long as SMTP allows, so that the link is not broken up by an encoding.
    message = EmailMessage(SMTP.clone(max_line_length=998))
    message["From"] = sender
    message["To"] = email
    message["Subject"] = subject
    message["Date"] = formatdate()
    # The same id on every attempt: a mail server that saw it before can drop the double.
    message["Message-ID"] = f"<{message_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n\n".join(map(_plain, paragraphs)) + "\n")
    body = "".join(f"<p>{_html(paragraph)}</p>" for paragraph in paragraphs)
    message.add_alternative(
        f'<!doctype html><html lang="en"><body>{body}</body></html>\n',
        subtype="html",
    )
    return message


def _plain(paragraph: str | Link) -> str:
    return paragraph if isinstance(paragraph, str) else f"{paragraph.text}\n\n{paragraph.url}"


def _html(paragraph: str | Link) -> str:
    if isinstance(paragraph, str):
        return escape(paragraph)
    url = escape(paragraph.url, quote=True)
    return f'{escape(paragraph.text)}<br><a href="{url}">{escape(paragraph.url)}</a>'
