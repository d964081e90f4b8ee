"""What went wrong with a connection, in one sentence: trouble that may pass (LinkError) or a refusal (LinkRefused).

pika wraps the broker's own words in the text of its exceptions, and calls every early disconnection a probable login
or protocol error. Only what the broker or TLS says about this account is final here: a load balancer or a cut line
also disconnects early, and a site must not give up for good because of that.
"""

import ssl
from collections.abc import Iterator
from typing import Final

from pika.exceptions import (
    AMQPHeartbeatTimeout,
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionBlockedTimeout,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from broker.errors import LinkError, LinkRefused
from broker.link import ALARMED
from broker.rabbit_address import Address

# AMQP reply codes
ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
NOT_ALLOWED: Final = 530


def explain(error: Exception, address: Address) -> LinkError | LinkRefused:
    """The error that a link reports for what pika, TLS or the socket raised."""
    return _refusal(error, address) or _passing(error, address)


def not_up_yet(error: ChannelClosedByBroker) -> bool:
    """Whether the queue is there and only its node is not, as for a moment after the broker's start: also a 404."""
    return error.reply_code == NOT_FOUND and "down or inaccessible" in str(error.reply_text)


def said(error: ChannelClosedByBroker | ConnectionClosedByBroker) -> str:
    """The broker's own words, without its code."""
    return str(error.reply_text).rpartition(" - ")[2] or str(error.reply_text)


def _refusal(error: Exception, address: Address) -> LinkError | LinkRefused | None:
    """What the broker or TLS says about this account; None if they said nothing."""
    words = str(error.args)
    match error:
        case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError):
            return _tls_refusal(words, address)
        case IncompatibleProtocolError() if "SSL" in words and "ALERT" in words:
            return _tls_refusal(words, address)
        case AuthenticationError():
            return LinkRefused(f"The broker at {address} does not offer this way to log in: use a password instead.")
        case ProbableAuthenticationError() if "ACCESS_REFUSED" in words:
            return LinkRefused(f"The broker at {address} refuses the login of {address.user!r}: check its password.")
        case ProbableAccessDeniedError() if "NOT_ALLOWED" in words:
            return _vhost_refusal(words, address)
    return None


def _passing(error: Exception, address: Address) -> LinkError | LinkRefused:
    match error:
        case ConnectionClosedByBroker() | ChannelClosedByBroker():
            return _closed_by_broker(error, address)
        case ConnectionBlockedTimeout():
            return LinkError(f"The broker at {address} {ALARMED}.")
        case AMQPHeartbeatTimeout():
            return LinkError(f"The broker at {address} has fallen silent.")
        case IncompatibleProtocolError():
            hint = "" if address.tls else " (if this is its TLS port, write amqps://)"
            return LinkError(f"The broker at {address} closed the connection at once{hint}.")
    return LinkError(f"The broker at {address} does not answer ({_cause(error)}).")


def _tls_refusal(text: str, address: Address) -> LinkRefused:
    if "CERTIFICATE_VERIFY_FAILED" in text:
        detail = text.rpartition("failed: ")[2].partition(" (_ssl")[0].rstrip(".")
        return LinkRefused(
            f"The certificate of {address} is not trusted ({detail}): check the host name and the CA file."
        )
    if "ALERT" in text:
        return LinkRefused(
            f"The broker at {address} refuses our certificate: give it one that is valid and signed for it."
        )
    if "WRONG_VERSION_NUMBER" in text:
        return LinkRefused(f"{address} does not speak TLS: use the broker's TLS port, usually 5671.")
    return LinkRefused(f"TLS with {address} failed ({text}): check the certificates and the port.")


def _vhost_refusal(text: str, address: Address) -> LinkError | LinkRefused:
    if "limit" in text:
        return LinkError(f"The broker at {address} has as many connections as it allows.")
    if "not found" in text:
        return LinkRefused(f"The broker at {address} has no virtual host {address.vhost!r}: correct the address.")
    return LinkRefused(
        f"The broker at {address} does not let {address.user!r} use the virtual host {address.vhost!r}: "
        "ask its coordinator for access."
    )


def _closed_by_broker(
    error: ConnectionClosedByBroker | ChannelClosedByBroker, address: Address
) -> LinkError | LinkRefused:
    words = said(error).rstrip(".")
    if error.reply_code in (ACCESS_REFUSED, NOT_ALLOWED):
        return LinkRefused(f"The broker at {address} lacks a permission for {address.user!r}, ask for it: {words}.")
    return LinkError(f"The broker at {address} closed the connection: {words}.")


def _cause(error: BaseException) -> str:
    """The operating system's words for what is wrapped in `error`, in lower case."""
    for inner in _unwrapped(error):
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        if "Timeout" in type(inner).__name__:
            return "timed out"
    return "connection lost"


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    """`error` and the errors that pika keeps inside it, outermost first."""
    yield error
    for inner in (*error.args, getattr(error, "exception", None)):
        if isinstance(inner, BaseException):
            yield from _unwrapped(inner)
