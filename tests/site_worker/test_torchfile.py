"""An exported model as a torch file: loaded by a program of its own, as its readers will, and with weights only."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from broker.commands import run_cli
from broker.errors import StorageError, UsageError
from broker.weights import Layout, model_digest, save_model
from site_worker.__main__ import cli

READER = """
import json, sys, torch
found = torch.load(sys.argv[1], weights_only=True)
state = found["state_dict"]
found["state_dict"] = {name: [list(one.shape), str(one.dtype), one.sum().item()] for name, one in state.items()}
print(json.dumps(found))
"""
WEIGHTS = {"a": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "b": np.array(0.5, np.float32)}
SITES = [{"site": "NY", "updates": 3, "examples": 84, "mean_staleness": 0.5, "share": 1.0}]


def exported(path: Path, *, digest: bytes | None = None) -> Path:
    layout = Layout.of(WEIGHTS)
    vector = layout.flatten(WEIGHTS)
    facts = {
        "federation": "icu", "task": "sepsis", "version": 7, "sites": SITES, "means": {"auc": 0.8}, "refused": 0,
        "digest": (digest or model_digest(layout.digest, vector)).hex(),
    }  # fmt: skip
    save_model(path, layout, vector, metadata={"card": json.dumps(facts)})
    return path


def test_the_file_loads_with_weights_only_and_says_where_it_comes_from(tmp_path: Path) -> None:
    source, target = exported(tmp_path / "model.safetensors"), tmp_path / "model.pt"
    assert run_cli(cli, ["export", str(source), str(target)]) == 0
    read = subprocess.run([sys.executable, "-c", READER, str(target)], capture_output=True, text=True, check=True)
    layout = Layout.of(WEIGHTS)
    assert json.loads(read.stdout) == {
        "state_dict": {"a": [[2, 2], "torch.float32", 10.0], "b": [[], "torch.float32", 0.5]},
        "layout": [["a", [2, 2]], ["b", []]],
        "federation": "icu",
        "task": "sepsis",
        "version": 7,
        "digest": model_digest(layout.digest, layout.flatten(WEIGHTS)).hex(),
        "sites": SITES,
        "metrics": {"auc": 0.8},
    }


def test_a_file_whose_weights_are_not_the_exported_ones_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = exported(tmp_path / "model.safetensors", digest=bytes(32))
    assert run_cli(cli, ["export", str(source), str(tmp_path / "model.pt")]) == StorageError.exit_code
    assert "does not hold the weights that were exported" in capfd.readouterr().err
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("card", [{}, {"card": "{}"}, {"card": "no json"}, {"card": '{"version": "7"}'}])
def test_another_safetensors_file_is_refused_with_a_sentence(
    tmp_path: Path, card: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.of(WEIGHTS)
    save_model(tmp_path / "other.safetensors", layout, layout.flatten(WEIGHTS), metadata=card)
    words = ["export", str(tmp_path / "other.safetensors"), str(tmp_path / "x.pt")]
    assert run_cli(cli, words) == UsageError.exit_code
    assert "was not written by 'fedqueue aggregator export'" in capfd.readouterr().err


def test_a_file_that_is_missing_damaged_or_cannot_be_written_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(b"half a file")
    source = exported(tmp_path / "model.safetensors")
    for words, code in (
        ((tmp_path / "none.safetensors", tmp_path / "x.pt"), UsageError.exit_code),
        ((tmp_path / "damaged.safetensors", tmp_path / "x.pt"), StorageError.exit_code),
        ((source, tmp_path / "no-folder" / "x.pt"), StorageError.exit_code),
        ((source, tmp_path), UsageError.exit_code),
    ):
        assert run_cli(cli, ["export", *map(str, words)]) == code
        assert len(capfd.readouterr().err.splitlines()) == 1
