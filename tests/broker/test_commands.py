"""How a command ends when the system says no."""

import click
import pytest

from broker.commands import run_cli
from broker.errors import UsageError


def test_a_folder_of_another_account_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def forbidden() -> None:
        raise PermissionError(13, "Permission denied", "/srv/site/site.toml")

    assert run_cli(forbidden, []) == UsageError.exit_code
    assert capfd.readouterr().err == (
        "error: This account may not use /srv/site/site.toml: run as its owner, or have its permissions changed.\n"
    )
