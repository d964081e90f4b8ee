"""What a site holds, and parts of what it fetches, on disk and in memory alike."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from broker.codecs import encode
from broker.differences import difference, led_on
from broker.errors import StorageError, WireError
from broker.messages import part_count, parts_of
from broker.weights import Layout, load_model, model_digest
from site_worker.models import Held, Leg, ModelFolder, ModelMemory, Models

rng = np.random.default_rng(3)
FIRST = rng.normal(size=600).astype(np.float32)
LAYOUT = Layout.of({"a": FIRST[:100].reshape(10, 10), "b": FIRST[100:]})
WANTED = FIRST + rng.normal(size=600).astype(np.float32) / np.float32(8)
STEP = b"".join(difference("int8", WANTED, FIRST))
SECOND = np.concatenate(list(led_on("int8", [STEP], FIRST)))
FIRST_DIGEST, SECOND_DIGEST = (model_digest(LAYOUT.digest, one) for one in (FIRST, SECOND))


@pytest.fixture(params=["folder", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Models]:
    """The models of one site; made again, those on disk are as they were."""
    memory = ModelMemory(LAYOUT)
    return (lambda: ModelFolder(tmp_path / "model", LAYOUT)) if request.param == "folder" else lambda: memory


@pytest.fixture(autouse=True)
def parts_of_1000_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.messages.PART_BYTES", 1000)


def whole() -> tuple[Leg, bytes]:
    payload = encode("float32", FIRST)
    return Leg(1, FIRST_DIGEST, "float32", len(payload), part_count(len(payload)), 10), payload


def step() -> tuple[Leg, bytes]:
    return Leg(2, SECOND_DIGEST, "int8", len(STEP), part_count(len(STEP)), 20, FIRST_DIGEST), STEP


def keep(models: Models, leg: Leg, payload: bytes) -> None:
    for part, body in enumerate(parts_of(payload)):
        models.keep(leg, part, leg.offset + part, body)


def test_a_keyframe_then_a_difference_make_the_models_bit_for_bit(make: Callable[[], Models]) -> None:
    keep(make(), *whole())
    assert np.array_equal(make().make([whole()[0]]), FIRST)
    keep(make(), *step())
    assert np.array_equal(make().make([step()[0]]), SECOND)
    assert make().held() == Held(2, SECOND_DIGEST)
    assert np.array_equal(make().make([]), SECOND)


def test_a_whole_way_at_once(make: Callable[[], Models]) -> None:
    keep(make(), *whole())
    keep(make(), *step())
    assert np.array_equal(make().make([whole()[0], step()[0]]), SECOND)


def test_parts_are_remembered_with_their_offsets_until_the_model_is_made(make: Callable[[], Models]) -> None:
    leg, payload = whole()
    assert leg.parts > 2
    make().keep(leg, 1, 17, payload[1000:2000])
    assert make().parts(leg) == {1: 17}
    keep(make(), leg, payload)
    make().make([leg])
    assert make().parts(leg) == {}


def test_nothing_is_held_at_first(make: Callable[[], Models]) -> None:
    assert make().held() is None
    with pytest.raises(WireError, match="no model here"):
        make().make([])
    keep(make(), *step())
    with pytest.raises(WireError, match="leads on from is not here"):
        make().make([step()[0]])


def test_a_wrong_model_is_thrown_away(make: Callable[[], Models]) -> None:
    leg, _ = whole()
    keep(make(), leg, encode("float32", FIRST + 1))
    with pytest.raises(WireError, match="version 1 is not the announced one"):
        make().make([leg])
    assert (make().held(), make().parts(leg)) == (None, {})


def test_what_the_model_was_may_be_overwritten(make: Callable[[], Models]) -> None:
    """A round may use the vector it is given for anything; what is held stays."""
    keep(make(), *whole())
    make().make([whole()[0]])[:] = 0
    assert np.array_equal(make().make([]), FIRST)


# ---- on disk


def test_what_is_held_is_one_file_that_other_tools_read(tmp_path: Path) -> None:
    models = ModelFolder(tmp_path / "model", LAYOUT)
    keep(models, *whole())
    models.make([whole()[0]])
    keep(models, *step())
    models.make([step()[0]])
    (file,) = (tmp_path / "model").iterdir()
    layout, vector = load_model(file)
    assert (layout, vector.tolist()) == (LAYOUT, SECOND.tolist())


def test_a_held_file_that_is_damaged_is_noticed_and_fetched_again(tmp_path: Path) -> None:
    models = ModelFolder(tmp_path / "model", LAYOUT)
    keep(models, *whole())
    models.make([whole()[0]])
    (file,) = (tmp_path / "model").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    keep(models, *step())
    with pytest.raises(WireError, match="not the announced one"):
        models.make([step()[0]])
    assert models.held() is None


def test_a_held_file_of_another_layout_is_fetched_again(tmp_path: Path) -> None:
    models = ModelFolder(tmp_path / "model", LAYOUT)
    keep(models, *whole())
    models.make([whole()[0]])
    other = ModelFolder(tmp_path / "model", Layout.of({"w": FIRST}))
    with pytest.raises(WireError, match="another layout"):
        other.make([])
    assert other.held() is None


def test_a_disk_that_will_not_have_a_part_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="could not be written"):
        ModelFolder(tmp_path / "model", LAYOUT).keep(whole()[0], 0, 10, b"x")
