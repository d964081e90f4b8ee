"""Settings: every mistake is one sentence with the file and the field; secrets are nobody else's."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from broker.errors import UsageError
from broker.settings import load_settings, read_secret, write_secret
from broker.topology import checked_name


class Inner(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    size: Annotated[int, Meta(ge=1)] = 3
    rate: float = 0.5
    strict: bool = True


class Outer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        checked_name(self.name, "Site")


def load(tmp_path: Path, text: str, **environ: str) -> Outer:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return load_settings(path, Outer, environ=environ)


def test_settings_and_their_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, 'name = "NY"\n[inner]\nsize = 4\n') == Outer("NY", Inner(size=4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "NY"\nnmae = "x"\n', "unknown field `nmae`"),
        ('name = "NY"\n[inner]\nsise = 4\n', "unknown field `sise` at `inner`"),
        ('name = "NY"\n[inner]\nsize = "four"\n', "Expected `int`, got `str` at `inner.size`"),
        ('name = "NY"\n[inner]\nsize = 0\n', "Expected `int` >= 1 at `inner.size`"),
        ('name = "NY"\ninner = 3\n', "Expected `object`, got `int` at `inner`"),
        ("[inner]\nsize = 4\n", "missing required field `name`"),
        ('name = "N Y"\n', "Site name 'N Y' cannot be used"),
        ("name = \n", "not a readable TOML file"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    sentence = str(caught.value)
    assert str(tmp_path / "site.toml") in sentence
    assert said in sentence
    assert "\n" not in sentence
    assert "$" not in sentence
    assert sentence.endswith(".")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no settings file"):
        load_settings(tmp_path / "absent.toml", Outer, environ={})
    (tmp_path / "latin.toml").write_bytes(b'name = "M\xfcnchen"')
    with pytest.raises(UsageError, match="not a readable TOML file"):
        load_settings(tmp_path / "latin.toml", Outer, environ={})


def test_the_environment_overrides(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        'name = "NY"\n[inner]\nsize = 4\nrate = 0.25\n',
        FEDQUEUE_NAME="BOS",
        FEDQUEUE_INNER__SIZE="7",
        FEDQUEUE_INNER__STRICT="false",
        FEDQUEUE_SIZE="9",
        SIZE="9",
    )
    assert found == Outer("BOS", Inner(size=7, rate=0.25, strict=False))


def test_the_environment_makes_a_table_that_the_file_has_not(tmp_path: Path) -> None:
    assert load(tmp_path, 'name = "NY"', FEDQUEUE_INNER__SIZE="7").inner.size == 7


def test_a_mistake_in_the_environment_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"at `inner.size`"):
        load(tmp_path, 'name = "NY"', FEDQUEUE_INNER__SIZE="seven")
    with pytest.raises(UsageError, match="Expected `object`, got `int` at `inner`"):
        load(tmp_path, 'name = "NY"\ninner = 3\n', FEDQUEUE_INNER__SIZE="7")


def test_a_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "broker.url"
    write_secret(path, "amqp://old")
    path.chmod(0o644)
    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        read_secret(path, "URL", "The address", environ={})
    write_secret(path, "amqp://new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secret(path, "URL", "The address", environ={}) == "amqp://new"


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broker.url"
    with pytest.raises(UsageError, match=r"The address is missing; write it to .* or set URL"):
        read_secret(path, "URL", "The address", environ={})
    assert read_secret(path, "URL", "The address", environ={"URL": "amqp://here"}) == "amqp://here"
