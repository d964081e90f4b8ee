"""`site check` without a broker: each failure in its own line, with its remedy, and nothing changed."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from broker.checks import Check
from broker.codecs import CHOICES
from broker.identity import PrivateKey
from broker.letters import Joined
from broker.settings import write_secret
from broker.statistics import FeatureStatistics
from broker.weights import Layout
from site_worker.check import SiteCheck
from site_worker.joining import create
from site_worker.settings import Folder
from site_worker.tasks.synthetic import tiny
from site_worker.tasks.task import Split, Task
from site_worker.training import initial_weights

HERE = "tests.site_worker.test_check"
KEY = PrivateKey.generate().public.to_text()
ALL = ["settings", "key", "federation", "task", "data", "training", "layout", "disk", "update"]


def good() -> Task:
    return tiny()


def another_name() -> Task:
    return replace(tiny(), name="other")


def wider() -> Task:
    return tiny(features=9)


def broken() -> Task:
    raise FileNotFoundError(2, "No such file or directory", "/data/ward.csv")


def no_rows(_: FeatureStatistics | None) -> Split:
    empty = TensorDataset(torch.zeros(0, 4), torch.zeros(0, 1))
    return replace(tiny().split(None), train=empty)


def empty() -> Task:
    return replace(tiny(), split=no_rows)


def unreadable() -> Task:
    def split(_: FeatureStatistics | None) -> Split:
        raise KeyError("age")

    return replace(tiny(), split=split)


def not_finite(scores: Tensor, _labels: Tensor) -> Tensor:
    return scores.sum() * math.nan


def diverging() -> Task:
    return replace(tiny(), loss=not_finite)


def raising(_scores: Tensor, _labels: Tensor) -> Tensor:
    raise ZeroDivisionError("no rows of this ward")


def mistaken() -> Task:
    return replace(tiny(), loss=raising)


def bad_metric() -> Task:
    def metric(_scores: object, _labels: object) -> float:
        raise ZeroDivisionError("no positives")

    return replace(tiny(), metrics={"ppv": metric})


def long_metric() -> Task:
    return replace(tiny(), metrics={"x" * 65: lambda _scores, _labels: 1.0})


def nothing_to_share() -> Task:
    return replace(tiny(), model=lambda: nn.Sequential(nn.Flatten()))


def site(tmp_path: Path, task: str = "good") -> Folder:
    folder = Folder(tmp_path / "ny")
    create(folder, site="NY", task=f"{HERE}:{task}", options={})
    return folder


def joined(folder: Folder, **changes: str) -> None:
    digest = Layout.of(initial_weights(good())).digest.hex()
    fields = {"federation": "icu", "site": "NY", "task": "tiny", "aggregator_key": KEY, "layout_digest": digest}
    folder.join_file.write_text(Joined(**{**fields, **changes}).to_toml())


def checks(folder: Folder) -> dict[str, Check]:
    return {check.name: check for check in SiteCheck(folder).run()}


def failed(folder: Folder) -> dict[str, str]:
    return {name: check.detail for name, check in checks(folder).items() if not check.passed}


def contents(folder: Folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_before_joining_all_that_can_be_checked_is_and_nothing_is_changed(tmp_path: Path) -> None:
    folder = site(tmp_path)
    before = contents(folder)
    found = checks(folder)
    assert contents(folder) == before
    assert list(found) == ALL
    assert all(check.passed for check in found.values())
    assert found["data"].detail == "48 rows to train on, statistics of 4 features"
    assert found["data"].figures == {"rows": 48}
    assert found["training"].figures["held_out"] == 16
    assert found["training"].figures["step_s"] > 0
    assert "auc" in found["training"].detail
    assert found["layout"].figures == {"parameters": 5}
    assert set(found["update"].figures) == {"model_bytes", *(f"{codec}_bytes" for codec in CHOICES)}
    assert found["update"].figures["model_bytes"] == 20
    assert "not joined yet" in found["federation"].detail


def test_the_update_that_is_measured_is_a_real_one(tmp_path: Path) -> None:
    """An update of zeros would be small and say nothing: noise of 100,000 parameters does not compress below a byte."""
    folder = Folder(tmp_path / "ny")
    task = "site_worker.tasks.synthetic:synthetic"
    create(folder, site="NY", task=task, options={"parameters": 100_000})
    figures = checks(folder)["update"].figures
    assert figures["model_bytes"] / 8 < figures["int8_bytes"] < figures["float32_bytes"]
    assert figures["top1_bytes"] < figures["model_bytes"] / 100


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        ("missing", "task", "no 'missing' that can be called"),
        ("broken", "task", "FileNotFoundError"),
        ("empty", "data", "no training rows: check the path and the filters"),
        ("unreadable", "data", "KeyError: 'age'"),
        ("diverging", "training", "look for missing or extreme values"),
        ("mistaken", "training", "The task raised ZeroDivisionError: no rows of this ward"),
        ("bad_metric", "training", "The task raised ZeroDivisionError: no positives"),
        ("long_metric", "training", "names of 1 to 64 characters"),
        ("nothing_to_share", "data", "no tensor to share"),
    ],
)
def test_what_is_wrong_with_the_task_is_said_by_the_check_it_breaks(
    tmp_path: Path, task: str, name: str, said: str
) -> None:
    found = failed(site(tmp_path, task))
    assert said in found[name]
    assert next(iter(found)) == name


def test_a_check_that_needs_a_failed_one_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    assert list(checks(site(tmp_path, "broken"))) == ["settings", "key", "federation", "task", "disk"]
    assert list(checks(site(tmp_path / "x", "diverging"))) == [one for one in ALL if one != "update"]


def test_settings_that_cannot_be_read_end_it(tmp_path: Path) -> None:
    folder = site(tmp_path)
    folder.settings_file.write_text("site = \n")
    found = checks(folder)
    assert "not a readable TOML file" in found["settings"].detail
    assert set(found) == {"settings", "key", "federation"}


def spoil_mode(folder: Folder) -> None:
    folder.key_file.chmod(0o644)


def spoil_key(folder: Folder) -> None:
    folder.key_file.write_text("no key")
    folder.key_file.chmod(0o600)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(spoil_mode, "chmod 600"), (spoil_key, "not a private key"), (lambda f: f.key_file.unlink(), "There is no key")],
)
def test_the_key_must_be_there_and_for_its_owner_alone(
    tmp_path: Path, spoil: Callable[[Folder], None], said: str
) -> None:
    folder = site(tmp_path)
    spoil(folder)
    found = failed(folder)
    assert list(found) == ["key"]
    assert said in found["key"]


@pytest.mark.parametrize(
    ("task", "changes", "name", "said"),
    [
        ("another_name", {}, "task", "makes task 'other', the federation runs 'tiny'"),
        ("wider", {}, "layout", r"10 parameters in 2 tensors) is not the federation's"),
        ("good", {"layout_digest": "ab" * 32}, "layout", "is not the federation's: compare the versions of the task"),
        ("good", {}, "broker", "The broker's address is missing"),
    ],
)
def test_what_does_not_fit_the_federation_is_named(
    tmp_path: Path, task: str, changes: dict[str, str], name: str, said: str
) -> None:
    folder = site(tmp_path, task)
    joined(folder, **changes)
    assert said in failed(folder)[name]


def test_a_join_file_of_before_is_not_compared(tmp_path: Path) -> None:
    folder = site(tmp_path, "wider")
    joined(folder, layout_digest="")
    assert "not compared" in checks(folder)["layout"].detail


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"amqp://icu.NY:x@{'x' * 64}.example/", "cannot be looked up"),
        ("amqp://icu.NY:x@127.0.0.1:1/", "Nothing answers at 127.0.0.1:1 (connection refused)"),
        ("http://broker.example/", "is no broker address"),
    ],
)
def test_why_the_broker_cannot_be_reached_is_told_apart(tmp_path: Path, url: str, said: str) -> None:
    folder = site(tmp_path)
    joined(folder)
    write_secret(folder.url_file, url)
    found = failed(folder)
    assert list(found) == ["broker"]
    assert said in found["broker"]


def test_a_short_disk_is_named_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site(tmp_path)
    folder.outbox_file.write_bytes(bytes(1000))
    # 20 models of 5 float32 and the outbox once more: 20 * 5 * 4 + 1000 = 1400.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1399))
    assert "1.4 kB" in failed(folder)["disk"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1400))
    assert failed(folder) == {}


def test_the_bounds_of_the_hospital_hold_for_the_check_too(tmp_path: Path) -> None:
    folder = site(tmp_path)
    text = folder.settings_file.read_text().replace("max_steps = 100000", "max_steps = 1")
    folder.settings_file.write_text(text.replace("max_batch_size = 65536", "max_batch_size = 2"))
    assert failed(folder) == {}
