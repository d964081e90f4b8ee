"""The address of a broker: checked once, and never shown with its password."""

from pathlib import Path

import pytest

from broker.errors import UsageError
from broker.rabbit import describe
from broker.rabbit_address import Address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqps://site-a:s3cret@broker.example.org/fed", "amqps://site-a@broker.example.org/fed"),
        ("amqp://a%40b:s%2F3cret@h:1/%2F", "amqp://a%40b@h:1/%2F"),
        ("amqp://h:1", "amqp://h:1"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert describe(url) == shown


def test_the_password_does_not_show_in_the_address_as_a_value() -> None:
    address = Address.parse("amqp://site-a:s3cret@broker/%2Ffed")
    assert (address.user, address.vhost, address.port) == ("site-a", "/fed", 5672)
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize(
    "url", ["http://a:b@h/v", "amqp://h/v", "amqp://a@h/v", "amqp://a:b@h:port/v", "amqp://a:b@/v", "nonsense"]
)
def test_an_unusable_address_is_a_users_mistake(url: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(url)


def test_missing_tls_files_are_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.pem"):
        Address.parse("amqps://a:b@h/v", ca_file=tmp_path / "absent.pem")
