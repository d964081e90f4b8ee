"""aggregator.toml: defaults that work, and a sentence for what does not."""

from pathlib import Path

import pytest

from aggregator.enrolment import AGGREGATOR_TOML
from aggregator.settings import Aggregation, Folder, Plan, Settings
from broker.codecs import Form
from broker.errors import UsageError


def folder(path: Path, text: str) -> Folder:
    (path / "aggregator.toml").write_text('federation = "fed"\ntask = "t"\n' + text)
    return Folder(path)


def test_the_file_that_init_writes_is_valid_and_says_the_defaults(tmp_path: Path) -> None:
    text = AGGREGATOR_TOML.format(federation="fed", task="t", min_sites=1, tls='ca_file = ""\n')
    (tmp_path / "aggregator.toml").write_text(text)
    assert Folder(tmp_path).settings() == Settings("fed", "t")


def test_the_environment_overrides_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDQUEUE_AGGREGATION__BUFFER_SIZE", "7")
    assert folder(tmp_path, "[aggregation]\nbuffer_size = 2\n").settings().aggregation.buffer_size == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[aggregation]\nbuffer_size = -1\n", "buffer_size"),
        ("[aggregation]\nbufer_size = 3\n", "bufer_size"),
        ('[aggregation]\nstrategy = "fedsgd"\n', "choose one of fedavg, fedasync"),
        ('[aggregation]\nstaleness = "linear"\n', "choose one of constant, polynomial, hinge"),
        ('[aggregation]\nweighting = "rows"\n', "weighting"),
        ('codec = "gzip"\n', "choose one of float32, bf16, int8"),
        ("[plan]\nlearning_rate = 0\n", "learning_rate"),
        ("[start]\nmin_sites = 0\n", "min_sites"),
        ('[plan]\noptimizer = "lion"\n', "optimizer"),
        ('[plan]\nschedule = "step"\n', "schedule"),
        ("[plan]\nsteps = 5\nwarmup_steps = 5\n", "warmup_steps is 5 of 5 steps; choose fewer"),
        ("[plan]\nclip_norm = -1\n", "clip_norm"),
        ("[plan]\npatience = 0.5\n", "patience"),
        ("[plan]\nproximal = -0.1\n", "proximal"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        folder(tmp_path, text).settings()


@pytest.mark.parametrize(
    ("shapes", "codec"),
    [
        (((512, 512),), "float32"),  # 1 MiB
        (((512, 512), (1,)), "lowrank-100"),
        (((262_144,), (1,)), "int8-coarse"),
    ],
    ids=["small", "larger", "without a matrix"],
)
def test_how_models_go_out_follows_from_what_they_are(shapes: tuple[tuple[int, ...], ...], codec: str) -> None:
    assert Settings("fed", "t").codec_of_models(Form(shapes)) == codec
    assert Settings("fed", "t", model_codec="top1").codec_of_models(Form(shapes)) == "top1"


def test_a_rule_gets_the_options_that_it_knows() -> None:
    assert Aggregation(staleness="polynomial", power=1.0).discount()(1) == 0.5
    assert Aggregation(staleness="hinge", slope=1.0, grace=0).discount()(1) == 0.5
    assert Aggregation(staleness="constant").discount()(9) == 1.0
    assert Aggregation(strategy="fedasync", buffer_size=9).build().buffer_size == 1
    assert Aggregation(buffer_size=9).build().buffer_size == 9


def test_a_plan_travels_as_names_and_numbers() -> None:
    assert Plan(steps=3, batch_size=2, learning_rate=0.5, optimizer="adam").to_wire() == [
        ("steps", 3.0), ("batch_size", 2.0), ("learning_rate", 0.5),
        ("optimizer", 1.0), ("momentum", 0.0), ("weight_decay", 0.0),
    ]  # fmt: skip


def test_what_came_later_travels_only_where_it_differs_so_that_older_sites_take_the_plan() -> None:
    later = Plan(schedule="cosine", warmup_steps=5, clip_norm=0.5, patience=3, proximal=0.1).to_wire()
    assert later[: len(Plan().to_wire())] == Plan().to_wire()
    assert later[len(Plan().to_wire()) :] == [
        ("schedule", 1.0), ("warmup_steps", 5.0), ("clip_norm", 0.5), ("patience", 3.0), ("proximal", 0.1),
    ]  # fmt: skip
