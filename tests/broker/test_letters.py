"""Requests and join files: what is written is read again, and a damaged one is a sentence."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UsageError
from broker.letters import Joined, Request
from broker.settings import to_toml

KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
DIGEST = "ab" * 32
REQUEST = f'site = "NY"\npublic_key = "{KEY}"\ntask = "sepsis"\nlayout_digest = "{DIGEST}"\nparameters = 27\n'


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    request = Request("NY", KEY, "sepsis", DIGEST, 27)
    (tmp_path / "NY.request.toml").write_text(request.to_toml())
    assert Request.read(tmp_path / "NY.request.toml") == request
    head, _, rest = request.to_toml().partition("\n")
    assert head == "# A request to join a federation. Fingerprint to compare by telephone: 21fe-31df-a154-a261"
    assert rest == REQUEST


def test_a_join_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    joined = Joined("icu", "NY", "sepsis", KEY, "amqp://icu.NY:secret@host/", DIGEST)
    (tmp_path / "NY.join.toml").write_text(joined.to_toml())
    assert Joined.read(tmp_path / "NY.join.toml") == joined


def test_a_join_file_of_before_needs_no_layout(tmp_path: Path) -> None:
    (tmp_path / "old").write_text(f'federation = "icu"\nsite = "NY"\ntask = "sepsis"\naggregator_key = "{KEY}"\n')
    assert Joined.read(tmp_path / "old") == Joined("icu", "NY", "sepsis", KEY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing required field `site`"),
        (REQUEST[:40], "not a readable TOML file"),
        (REQUEST.replace("11qY", "11q!"), "is not a public key"),
        (REQUEST.replace('"NY"', '"N Y"'), "Site name 'N Y' cannot be used"),
        (REQUEST.replace('"NY"', '"models"'), "cannot be used"),
        (REQUEST.replace(DIGEST, DIGEST[1:]), "`layout_digest`"),
        (REQUEST.replace(DIGEST, DIGEST.upper()), "`layout_digest`"),
        (REQUEST.replace("27", "-1"), "`parameters`"),
        (REQUEST.replace("parameters", "parametres"), "unknown field `parametres`"),
        (REQUEST + 'password = "x"\n', "unknown field `password`"),
    ],
)
def test_a_damaged_request_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "NY.request.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Request.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_letter_names_who_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no request file .*the hospital makes it"):
        Request.read(tmp_path / "NY.request.toml")
    with pytest.raises(UsageError, match=r"no join file .*the coordinator makes it"):
        Joined.read(tmp_path / "NY.join.toml")


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text() | st.integers(-9, 9) | st.booleans()))
def test_whatever_is_written_as_toml_is_read_again(values: dict[str, str | float]) -> None:
    assert tomllib.loads(to_toml(values)) == values
