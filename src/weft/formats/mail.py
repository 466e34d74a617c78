"""Mails (.eml), and pages that were saved as one file (.mht, .mhtml)."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart

from weft.charsets import decode
from weft.formats.html import page_text

_HEADERS = ("Subject", "From", "To", "Cc", "Date")


def mail(data: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """A mail's text, with who wrote it to whom and when, and its attachments, by name."""
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    headers = [f"{name}: {' '.join(str(message[name]).split())}" for name in _HEADERS if message[name]]
    text = "\n\n".join(part for part in ("\n".join(headers), _body(message)) if part)
    return text, list(_attachments(message))


def saved_page(data: bytes) -> str:
    """The text of a page that was saved as one file."""
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return _body(message)


def _body(message: EmailMessage) -> str:
    """What a mail says: its plain text, or else its page."""
    body = message.get_body(("plain", "html"))
    if body is None:
        return ""
    text = _text(body)
    if not text.strip() and body.get_content_subtype() == "plain":
        body = message.get_body(("html",)) or body
        text = _text(body)
    return page_text(text) if body.get_content_subtype() == "html" else text.strip()


def _text(part: MIMEPart) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        return data.decode(part.get_content_charset() or "utf-8").replace("\r\n", "\n")
    except (LookupError, UnicodeDecodeError):
        return decode(data).text


def _attachments(message: EmailMessage) -> Iterator[tuple[str, bytes]]:
    if not message.is_multipart():
        return
    for part in message.iter_attachments():
        if part.get_content_type() == "message/rfc822":
            inner = part.get_content()
            yield f"{part.get_filename() or 'forwarded'}.eml".replace(".eml.eml", ".eml"), inner.as_bytes()
        elif part.get_filename() or part.get_content_disposition() == "attachment":
            payload = part.get_payload(decode=True)
            yield part.get_filename() or "unnamed", payload if isinstance(payload, bytes) else b""
