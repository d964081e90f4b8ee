"""Setting up a site: what is made, what a join file changes, and what is left when it fails."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.commands import run_cli
from broker.errors import StorageError, UsageError
from broker.identity import PrivateKey
from broker.letters import Joined, Request
from broker.serving import Tls
from broker.weights import load_model
from site_worker import request as request_module
from site_worker.__main__ import cli
from site_worker.joining import create, join, parsed_file
from site_worker.settings import Folder

TINY = "site_worker.tasks.synthetic:tiny"
KEY, OTHER_KEY = (PrivateKey.generate().public.to_text() for _ in range(2))
JOINED = Joined("icu", "NY", "tiny", KEY, "amqp://icu.NY:secret@broker.example/", "ab" * 32)
HERE = "tests.site_worker.test_joining"


def broken() -> None:
    """A task whose data is not there."""
    raise FileNotFoundError(2, "No such file or directory", "/data/ward.csv")


def site(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "ny")
    create(folder, site="NY", task=TINY, options={})
    return folder


def file(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "NY.join.toml"
    path.write_text(msgspec.structs.replace(JOINED, **changes).to_toml())
    return path


def init(*words: object) -> int:
    return run_cli(cli, ["init", *map(str, words)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_init_makes_key_settings_request_and_version_0(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path / "ny")
    assert init(folder.path, "--site", "NY", "--task", TINY, "--option", "features=3") == 0
    assert names(folder.path) == {"site.key", "site.toml", "NY.request.toml", "initial.safetensors"}
    layout, _ = load_model(folder.model_file)
    key = PrivateKey.load(folder.key_file).public
    request = Request.read(folder.request_file("NY"))
    assert request == Request("NY", key.to_text(), "tiny", layout.digest.hex(), 4)
    assert folder.settings().options == {"features": 3}
    told = capfd.readouterr().out
    assert str(folder.request_file("NY")) in told
    assert key.fingerprint in told


def test_without_a_model_the_task_is_not_loaded(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "ny")
    assert init(folder.path, "--site", "NY", "--task", "not.installed:yet", "--no-model") == 0
    assert names(folder.path) == {"site.key", "site.toml", "NY.request.toml"}
    assert Request.read(folder.request_file("NY")).layout_digest == ""


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("not.installed:yet", "cannot be imported"),
        (f"{HERE}:missing", "no 'missing' that can be called"),
        (f"{HERE}:broken", "FileNotFoundError"),
        (f"{HERE}:HERE", "no 'HERE' that can be called"),
    ],
)
def test_a_task_that_does_not_load_leaves_nothing_and_names_the_way_round(
    tmp_path: Path, task: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "ny", "--site", "NY", "--task", task) == UsageError.exit_code
    told = capfd.readouterr().err
    assert said in told
    assert told.rstrip().endswith("Or leave the model for later with --no-model.")
    assert list(tmp_path.iterdir()) == []


def test_a_second_init_changes_nothing_and_names_the_command_that_would(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = site(tmp_path)
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    assert init(folder.path, "--site", "NY", "--task", TINY) == UsageError.exit_code
    assert "holds a site already; 'fedqueue site request' writes its request again" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_a_killed_init_can_be_repeated_and_keeps_its_key(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "ny")
    folder.path.mkdir()
    PrivateKey.generate().save(folder.key_file)  # the settings file comes after it
    before = PrivateKey.load(folder.key_file).public
    assert create(folder, site="NY", task=TINY, options={}) == before


def test_the_request_follows_a_changed_task_and_the_key_stays(tmp_path: Path) -> None:
    folder = site(tmp_path)
    first = request_module.write_request(folder)
    folder.settings_file.write_text(folder.settings_file.read_text() + "features = 9\n")
    second = request_module.write_request(folder)
    assert (first.parameters, second.parameters, first.public_key) == (5, 10, second.public_key)
    assert load_model(folder.model_file)[0].digest.hex() == second.layout_digest


def test_certificate_files_are_kept_with_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init("ny", "--site", "NY", "--task", TINY, "--no-model", "--ca-file", "ca.pem") == 0
    assert Folder(tmp_path / "ny").settings().tls == Tls(ca_file=str(tmp_path / "ca.pem"))


def test_joining_keeps_the_federation_and_the_password_apart(tmp_path: Path) -> None:
    folder = site(tmp_path)
    join(folder, file(tmp_path))
    assert folder.joined() == msgspec.structs.replace(JOINED, broker_url="")
    assert "secret" not in folder.join_file.read_text()
    assert folder.url_file.read_text().strip() == JOINED.broker_url
    assert folder.url_file.stat().st_mode & 0o777 == 0o600


def test_the_same_federation_may_be_joined_again_for_a_new_password(tmp_path: Path) -> None:
    folder = site(tmp_path)
    join(folder, file(tmp_path))
    join(folder, file(tmp_path, broker_url="amqp://icu.NY:new@broker.example/"))
    assert ":new@" in folder.url_file.read_text()
    join(folder, file(tmp_path, broker_url=""))
    assert ":new@" in folder.url_file.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"site": "MN"}, "is for site MN, but .*ny is site NY"),
        ({"federation": "other"}, "is in federation icu; for other make another folder"),
        ({"aggregator_key": OTHER_KEY}, "has another key than the one this site trusts"),
        ({"broker_url": "http://broker.example/"}, "is no broker address"),
    ],
)
def test_a_join_file_that_is_not_for_this_site_changes_nothing(tmp_path: Path, changes: Any, said: str) -> None:
    folder = site(tmp_path)
    join(folder, file(tmp_path))
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(UsageError, match=said):
        join(folder, file(tmp_path, **changes))
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ny").write_text("")
    with pytest.raises(StorageError, match="cannot be used: Not a directory"):
        create(Folder(tmp_path / "ny" / "site"), site="NY", task=TINY, options={})


def test_options_of_any_text_are_read_again(tmp_path: Path) -> None:
    options: dict[str, str | float] = {"path": '/data/"ward"\\ \U0001f3e5\x7f\n', "rows": 3, "rate": 0.5}
    folder = Folder(tmp_path / "ny")
    create(folder, site="NY", task=TINY, options=options)
    assert folder.settings().options == options


def test_an_option_that_is_a_path_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ward.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert parsed_file("data=ward.csv") == ("data", str(tmp_path / "ward.csv"))
    with pytest.raises(
        UsageError, match=r"^There is nothing at 'no\.csv', which is given for 'data'; correct the path\.$"
    ):
        parsed_file("data=no.csv")
    with pytest.raises(UsageError, match="must read NAME=PATH"):
        parsed_file("ward.csv")
