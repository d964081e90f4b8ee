"""The model card: figures a reader can add up by hand, and names that stay names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.__main__ import cli
from aggregator.card import Card, Evaluation, Member, read_card
from aggregator.cardtext import to_markdown
from aggregator.opening import restore
from aggregator.settings import Aggregation
from aggregator.status import read_status
from broker.commands import run_cli
from broker.errors import UsageError
from broker.histograms import KEYS
from broker.weights import load_model, read_metadata
from tests.aggregator.bench import Bench, floats
from tests.aggregator.conftest import MakeBench

PAIR = Aggregation(strategy="fedbuff", buffer_size=2)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """Version 1 of A (1 row, fresh) and B (3 rows, fresh), version 2 of A (1 row, fresh) and B (3 rows, one behind)."""
    made = make_bench(model=floats(0, 0), aggregation=PAIR)
    made.start()
    a, b = made.sites.values()
    made.feed(a.update(1, floats(1, 0), examples=1, held_out=10, metrics=[("auc", 0.5)]))
    made.feed(b.update(1, floats(1, 0), examples=3, held_out=30, metrics=[("auc", 0.7)]))
    first = made.journal.versions()[1].digest
    made.feed(
        a.update(2, floats(1, 0), examples=1, base_version=1, base_digest=first, held_out=10, metrics=[("auc", 0.6)])
    )
    made.feed(b.update(2, floats(1, 0), examples=3, held_out=30, metrics=[("auc", 0.9)]))
    assert made.version == 2
    return made


def card_of(bench: Bench, version: int) -> Card:
    layout, fold = restore(bench.journal, bench.place, PAIR, at_version=version)
    return read_card(bench.journal, bench.settings, layout, fold)


def test_the_shares_are_those_worked_by_hand(bench: Bench) -> None:
    # Version 1: factors 1/4 and 3/4. Version 2: 1/4, and 3/4 * (1 + 1)^-1/2 = 0.53033. Sum 1.78033.
    assert [one.share for one in card_of(bench, 2).sites] == pytest.approx([0.5 / 1.78033, 1.28033 / 1.78033], rel=1e-5)
    assert [(one.site, one.updates, one.examples, one.mean_staleness) for one in card_of(bench, 2).sites] == [
        ("A", 2, 1, 0.0), ("B", 2, 3, 0.5),
    ]  # fmt: skip
    assert [(one.updates, one.share) for one in card_of(bench, 1).sites] == [(1, 0.25), (1, 0.75)]
    assert card_of(bench, 0).sites == ()


def test_each_sites_newest_evaluation_up_to_the_version_counts(bench: Bench) -> None:
    assert card_of(bench, 1).evaluations == (Evaluation("A", 1, 10, {"auc": 0.6}), Evaluation("B", 0, 30, {"auc": 0.9}))
    assert card_of(bench, 1).means == {"auc": pytest.approx((10 * 0.6 + 30 * 0.9) / 40)}
    # A evaluated version 1 with its second update: version 0 is what its first says.
    assert card_of(bench, 0).evaluations == (Evaluation("A", 0, 10, {"auc": 0.5}), Evaluation("B", 0, 30, {"auc": 0.9}))


def test_the_rule_is_the_one_that_made_the_version(bench: Bench) -> None:
    assert card_of(bench, 2).rule["buffer_size"] == 2
    assert card_of(bench, 2).rule["strategy"] == "fedbuff"


def test_refusals_until_the_version_are_counted(bench: Bench) -> None:
    bench.now = 200.0
    bench.feed(bench.sites["A"].update(9, floats(1, 0), task="other"))
    assert card_of(bench, 2).refused == 0
    bench.feed(bench.sites["A"].update(3, floats(1, 0)))
    bench.feed(bench.sites["B"].update(3, floats(1, 0)))
    assert card_of(bench, 3).refused == 1


def settings_on_disk(bench: Bench) -> None:
    text = 'federation = "fed"\ntask = "sepsis"\n[aggregation]\nbuffer_size = 2\n'
    bench.place.settings_file.write_text(text)


def test_export_writes_the_model_its_card_and_the_same_facts_as_metadata(bench: Bench, tmp_path: Path) -> None:
    settings_on_disk(bench)
    file = tmp_path / "model.safetensors"
    assert run_cli(cli, ["export", str(bench.place.path), str(file), "--version", "1"]) == 0
    metadata = read_metadata(file)
    facts = json.loads(metadata["card"])
    assert (metadata["federation"], metadata["version"], facts["parameters"]) == ("fed", "1", 2)
    assert metadata["digest"] == facts["digest"] == bench.journal.versions()[1].digest.hex()
    assert facts["sites"][1] == {"site": "B", "updates": 1, "examples": 3, "mean_staleness": 0.0, "share": 0.75}
    assert facts["means"] == {"auc": pytest.approx(0.825)}
    assert load_model(file)[1].tolist() == [1.0, 0.0]
    text = file.with_suffix(".md").read_text()
    for line in (
        "# Model card: `fed`, version 1",
        "| task | `sepsis` |",
        "| `B` | 1 | 3 | 0.00 | 75.0% |",
        "| `A` | this | 10 | 0.6 |",
        "| `B` | 0 (older) | 30 | 0.9 |",
        "| mean by rows | different | 40 | 0.825 |",
        "| `w` | 2 |",
    ):
        assert line in text.splitlines()
    assert "Do not call the model anonymous" in " ".join(text.split())


def test_export_needs_a_name_that_leaves_room_for_the_card(
    bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings_on_disk(bench)
    assert run_cli(cli, ["export", str(bench.place.path), str(tmp_path / "model.md")]) == UsageError.exit_code
    assert "must end in .safetensors" in capfd.readouterr().err
    assert not (tmp_path / "model.md").exists()


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "`x`",
        "a\\|b",
        "x\n\n# Anonymous",
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "\u202egnp.",
        "|",
    ],
)
def test_a_foreign_name_stays_one_cell_of_one_line(name: str) -> None:
    card = Card(
        federation="fed",
        task=name,
        version=1,
        digest="00",
        parameters=1,
        made_at="2026-01-01T00:00:00+00:00",
        tensors=((name, ()),),
        rule={},
        sites=(Member(name, 1, 1, 0.0, 1.0),),
        evaluations=(Evaluation(name, 1, 1, {name: 0.5}),),
        refused=0,
    )
    plain = to_markdown(Card(**{**vars(card), "task": "x", "tensors": (("x", ()),), "sites": (Member("x", 1, 1, 0, 1),),
                                "evaluations": (Evaluation("x", 1, 1, {"x": 0.5}),)}))  # fmt: skip
    lines = to_markdown(card).splitlines()
    assert len(lines) == len(plain.splitlines())
    for line, without in zip(lines, plain.splitlines(), strict=True):
        assert line.count("|") == without.count("|")
        assert line.count("`") == without.count("`")
        assert "\\" not in line
        assert line.isprintable()


def test_a_removed_sites_history_stays_readable(bench: Bench) -> None:
    settings_on_disk(bench)
    bench.feed(bench.sites["B"].update(9, floats(1, 0), task="other"))
    bench.journal.begin()
    bench.journal.remove("B")
    bench.journal.commit()
    a, b = read_status(bench.place).sites
    assert (a.site, a.accepted, b.site, b.state, b.accepted, b.refused) == ("A", 2, "B", "removed", 2, 1)
    assert [one.site for one in card_of(bench, 2).sites] == ["A", "B"]
    assert "B" not in bench.journal.sites()


def counts(**rows: float) -> dict[str, float]:
    return dict.fromkeys(KEYS, 0.0) | rows


def test_over_all_rows_the_counts_give_what_a_reader_can_add_up(bench: Bench) -> None:
    # Positive rows in bins 25 and 10, negative ones in bins 0 and 10: of four pairs three are right and one is a tie.
    of_one = (
        Evaluation("A", 2, 2, {"auc": 1.0}, counts(p25=1, n00=1)),
        Evaluation("B", 2, 2, {"auc": 0.5}, counts(p10=1, n10=1)),
        Evaluation("C", 2, 5, {"auc": 0.5}),
    )
    card = replace(card_of(bench, 2), evaluations=of_one)
    assert (card.pooled["auc"], card.pooled["auc_bound"]) == (3.5 / 4, 1 / 4 / 2)
    assert "from their score histograms: auc 0.875 (within 0.12)" in to_markdown(card)
    assert json.loads(card.metadata()["card"])["pooled"]["auc"] == 3.5 / 4
    mixed = replace(card, evaluations=(replace(of_one[0], version=1), *of_one[1:]))
    assert "histograms, of different versions, so only roughly: auc 0.875, calibration" in to_markdown(mixed)
    assert "histograms" not in to_markdown(replace(card, evaluations=of_one[2:]))


def test_counts_among_the_metrics_are_no_metrics_of_the_card(bench: Bench) -> None:
    sent = {"auc": 0.5, **{f"scores.{name}": value for name, value in counts(p25=1, n00=1).items()}}
    first = bench.journal.versions()[1].digest
    bench.feed(
        bench.sites["A"].update(
            3, floats(1, 0), base_version=1, base_digest=first, held_out=2, metrics=list(sent.items())
        )
    )
    newest = card_of(bench, 2).evaluations[0]
    assert (newest.metrics, newest.histogram) == ({"auc": 0.5}, counts(p25=1, n00=1))
