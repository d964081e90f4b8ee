"""Accounts and rights of a federation on a broker that somebody else runs, as its operator can apply them.

Either lines for `rabbitmqctl`, which may be run again after a hospital was added, or a fragment of RabbitMQ's
definitions. The fragment has no users: a definitions file holds their password hashes, and one without would lock out
an account that exists.
"""

import shlex
from collections.abc import Iterable
from typing import Any

from broker.topology import (
    WATCHER_RIGHTS,
    Rights,
    account_of,
    aggregator_rights,
    checked_name,
    site_rights,
    watcher_of,
)

AGGREGATOR = "aggregator"


def accounts(federation: str, sites: Iterable[str]) -> dict[str, Rights]:
    """The aggregator's two accounts and those of `sites`; UsageError for a name that cannot be used."""
    checked_name(federation, "Federation")
    own = {account_of(federation, AGGREGATOR): aggregator_rights(federation), watcher_of(federation): WATCHER_RIGHTS}
    return own | {account_of(federation, checked_name(one, "Site")): site_rights(federation, one) for one in sites}


def rabbitmqctl(rights: dict[str, Rights], *, vhost: str) -> list[str]:
    """Lines for a shell on the broker's machine; `add_user` asks for a password, or says that the account is known."""
    lines = ["# Line by line, not all at once: add_user reads what follows it as the password."]
    for account, one in rights.items():
        lines.append(_line("add_user", account))
        lines.append(_line("set_permissions", "-p", vhost, account, one.configure, one.write, one.read))
        if one.tags:
            lines.append(_line("set_user_tags", account, one.tags))
        for exchange, write, read in one.topics:
            lines.append(_line("set_topic_permissions", "-p", vhost, account, exchange, write, read))
    return lines


def definitions(rights: dict[str, Rights], *, vhost: str) -> dict[str, list[dict[str, Any]]]:
    """What to add to a definitions file, or to import once the accounts exist."""
    permissions = [
        {"user": account, "vhost": vhost, "configure": one.configure, "write": one.write, "read": one.read}
        for account, one in rights.items()
    ]
    topics = [
        {"user": account, "vhost": vhost, "exchange": exchange, "write": write, "read": read}
        for account, one in rights.items()
        for exchange, write, read in one.topics
    ]
    return {"permissions": permissions, "topic_permissions": topics}


def _line(*words: str) -> str:
    return shlex.join(["rabbitmqctl", *words])
