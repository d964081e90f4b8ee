"""Everyday mistakes: each ends in one sentence with a remedy and an exit code, and leaves nothing half-made."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.commands import run_cli
from broker.errors import LinkError, LinkRefused, StorageError, UsageError
from broker.identity import PrivateKey
from broker.letters import Joined
from broker.node import Node
from broker.settings import write_secret
from deploy.cli import cli
from tests.acceptance.administrator import Administrator

TINY: Final = "site_worker.tasks.synthetic:tiny"
KEY: Final = PrivateKey.generate().public.to_text()
NOWHERE: Final = "amqp://fed.aggregator:secret@127.0.0.1:1/"
ENCRYPTED: Final = "amqps://fed.aggregator:secret@127.0.0.1:1/"


@dataclass
class Desk:
    """A folder with the site `a`, its request, and a broker in `node` that runs; the names below are in it."""

    path: Path
    node: Node

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def nothing(self) -> None:
        """As it is."""

    def address(self, url: str) -> None:
        (self.path / "agg").mkdir()
        write_secret(self.path / "agg" / "broker.url", url)

    def wrong_password(self) -> None:
        self.address(self.node.amqp_url("admin", "wrong"))

    def copy(self, name: str, folder: str) -> None:
        self.write(f"{folder}/{Path(name).name}", (self.path / name).read_text())

    def join_file(self, site: str) -> None:
        self.write("x.toml", Joined("fed", site, "tiny", KEY).to_toml())

    def stopped_node(self) -> None:
        Node.create(self.path / "x")

    def federation(self) -> None:
        assert run_cli(cli, [*f"{INIT} {ASKED}".split(), "--broker", str(self.node.folder)]) == 0


@dataclass(frozen=True)
class Case:
    """What is typed, what it says, with which exit code, and what is done before."""

    words: str
    said: str
    code: int = UsageError.exit_code
    before: Callable[[Desk], object] = Desk.nothing


SITE: Final = f"site init b --site B --task {TINY}"
INIT: Final = "aggregator init agg --federation fed-desk"
ASKED: Final = "a/a.request.toml"
CASES: Final = (
    Case("site init b --site N.Y --task x:y", "Site name 'N.Y' cannot be used"),
    Case("site init b --site B --task no.such:task", "cannot be imported .*with --no-model"),
    Case("site init b --site B --task nothing", "must be written as module:function"),
    Case(f"{SITE} --option rows", "must read NAME=VALUE"),
    Case(f"{SITE} --option clinic=NY", "does not take these options"),
    Case(f"site init a --site a --task {TINY}", "'fedqueue site request' writes its request again"),
    Case(
        SITE.replace("init b", "init file/b"), "Not a directory", StorageError.exit_code, lambda d: d.write("file", "")
    ),
    Case("site request none", "There is no settings file none/site.toml"),
    Case("site run none", "There is no settings file none/site.toml"),
    Case("site run a", "has joined no federation yet"),
    Case("site run a", "unknown field `thread`", before=lambda d: d.write("a/site.toml", 'site = "a"\nthread = 2\n')),
    Case("site run a --join x.toml", "There is no join file x.toml"),
    Case("site run a --join x.toml", "x.toml is for site b, but a is site a", before=lambda d: d.join_file("b")),
    Case("site join a x.toml", "not a readable TOML file", before=lambda d: d.write("x.toml", "site = ")),
    Case(f"site join a {ASKED}", "missing required field|unknown field"),
    Case("site join a a", "a is not a readable TOML file"),
    Case("site status a", "There is no a/outbox.db"),
    Case("site export none.safetensors x.pt", "There is no model file none.safetensors"),
    Case(INIT, "give --model"),
    Case(f"{INIT} none.toml", "There is no request file none.toml"),
    Case(f"{INIT} x.toml", "not a readable TOML file", before=lambda d: d.write("x.toml", "site = ")),
    Case(f"{INIT} x.toml", "missing required field|unknown field", before=lambda d: d.join_file("a")),
    Case(f"{INIT} a/initial.safetensors", "not a readable TOML file"),
    Case(f"{INIT} x/a.request.toml", "There is no model file x/initial", before=lambda d: d.copy(ASKED, "x")),
    Case(f"{INIT} --model x {ASKED}", "x is not a readable", StorageError.exit_code, lambda d: d.write("x", "half")),
    Case(f"{INIT} {ASKED}", "address is missing; write it to agg/broker.url"),
    Case(f"{INIT} {ASKED} --broker none", "There is no broker in"),
    Case(f"{INIT} {ASKED} --broker x", "start it with 'fedqueue broker up", LinkError.exit_code, Desk.stopped_node),
    Case(f"{INIT} {ASKED}", "Nothing answers at 127.0.0.1:1", LinkError.exit_code, lambda d: d.address(NOWHERE)),
    Case(f"{INIT} {ASKED}", "check its password", LinkRefused.exit_code, Desk.wrong_password),
    Case(f"{INIT} {ASKED}", "chmod 600 agg/broker.url", before=lambda d: d.write("agg/broker.url", NOWHERE)),
    Case(f"{INIT} {ASKED} --ca-file none.pem", "none.pem cannot be used", before=lambda d: d.address(ENCRYPTED)),
    Case(f"{INIT} {ASKED}", "holds a federation already: use 'add-site'", before=Desk.federation),
    Case("aggregator run none", "There is no settings file none/aggregator.toml"),
    Case("aggregator run x", "not a readable TOML file", before=lambda d: d.write("x/aggregator.toml", "=")),
    Case(f"aggregator add-site none {ASKED}", "There is no settings file none/aggregator.toml"),
    Case("aggregator add-site agg ed25519:x", "There is no request file ed25519:x", before=Desk.federation),
    Case(f"aggregator add-site agg {ASKED} --out .", "is a folder; name a file", before=Desk.federation),
    Case(f"aggregator add-site agg {ASKED} --out no/x", "no folder no to write", before=Desk.federation),
    Case("aggregator remove-site agg KY", "not enrolled; those that are: a", before=Desk.federation),
    Case("aggregator remove-site agg N.Y", "Site name 'N.Y' cannot be used", before=Desk.federation),
    Case("aggregator export agg x.safetensors --version 7", "choose 0 to 0", before=Desk.federation),
    Case("aggregator export agg x.md", "must end in .safetensors", before=Desk.federation),
    Case("aggregator export agg no/x.safetensors", "no folder no to write", before=Desk.federation),
    Case("aggregator export none x.safetensors", "has this folder been initialised"),
    Case("broker down none", "There is no broker in"),
    Case("broker rights i.cu", "Federation name 'i.cu' cannot be used"),
)


@pytest.fixture
def desk(tmp_path: Path, node: Node, administrator: Administrator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    assert run_cli(cli, ["site", "init", "a", "--site", "a", "--task", TINY]) == 0
    yield Desk(tmp_path, node)
    administrator.clear("fed-desk")


def files(path: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in path.rglob("*") if one.is_file() and "journal.db-" not in one.name}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.words}: {case.said}")
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    desk: Desk, case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    case.before(desk)
    before, folders = files(desk.path), {one for one in desk.path.rglob("*") if one.is_dir()}
    capfd.readouterr()
    assert run_cli(cli, case.words.split()) == case.code
    told = capfd.readouterr().err
    assert re.fullmatch(r"error: .+\n", told), told
    assert re.search(case.said, told), told
    assert files(desk.path) == before
    assert {one for one in desk.path.rglob("*") if one.is_dir()} == folders


def test_the_codes_are_those_of_the_errors() -> None:
    kinds = (LinkError, UsageError, LinkRefused, StorageError)
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4]
    assert {case.code for case in CASES} == {1, 2, 3, 4}
