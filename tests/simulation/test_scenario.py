"""The schema of a scenario: each mistake in one sentence with file and field."""

from pathlib import Path

import pytest

from aggregator.settings import Aggregation
from broker.errors import UsageError
from deploy.simulation.scenario import Scenario, load, parse, ready, text_of

BASE = 'title = "t"\n'
STOP = "[stop]\nseconds = 60\n"
QUADRATICS = "[surrogate]\n"


def parsed(text: str) -> Scenario:
    return parse(text, Path("mine.toml"))


MISTAKES = {
    "not TOML": ("title =", "mine.toml is not a readable TOML file"),
    "no title": (QUADRATICS + STOP, "mine.toml: Object missing required field `title`"),
    "no end": (BASE + QUADRATICS, "missing required field `stop`"),
    "no seconds": (BASE + QUADRATICS + "[stop]\nversions = 3\n", "missing required field `seconds` at `stop`"),
    "unknown field": (BASE + QUADRATICS + STOP + "hours = 1\n", "contains unknown field `hours` at `stop`"),
    "unknown table": (BASE + QUADRATICS + STOP + "[weather]\n", "contains unknown field `weather`"),
    "nothing to learn": (BASE + STOP, "Give one of [task] and [surrogate]"),
    "two things to learn": (BASE + QUADRATICS + STOP + '[task]\nname = "a:b"\n', "Give one of [task] and [surrogate]"),
    "rows of none": (BASE + QUADRATICS + STOP + '[sites]\nsplit = "dirichlet"\n', "surrogate has no rows to split"),
    "unknown split": (
        BASE + QUADRATICS + STOP + '[sites]\nsplit = "odd"\n',
        "Invalid enum value 'odd' at `sites.split`",
    ),
    "names": (
        BASE + QUADRATICS + STOP + '[sites]\nnumber = 3\nnames = ["A", "A", "B"]\n',
        "`sites.names` has 2 different names for 3 sites",
    ),
    "a bad name": (BASE + QUADRATICS + STOP + '[sites]\nnames = ["a b"]\n', "Site name 'a b' cannot be used"),
    "natural": (BASE + STOP + '[task]\nname = "a:b"\n[sites]\nsplit = "natural"\n', "`sites.options` and split"),
    "options": (
        BASE + STOP + '[task]\nname = "a:b"\n[sites]\nnumber = 2\nsplit = "natural"\noptions = [{a = 1}]\n',
        "`sites.options` has 1 tables for 2 sites",
    ),
    "speeds": (BASE + QUADRATICS + STOP + "[speeds]\nvalues = [1.0]\n", "`speeds.values` and kind"),
    "too few speeds": (
        BASE + QUADRATICS + STOP + '[sites]\nnumber = 2\n[speeds]\nkind = "list"\nvalues = [1.0]\n',
        "`speeds.values` has 1 numbers for 2 sites",
    ),
    "who": (BASE + QUADRATICS + STOP + '[[absences]]\nwho = "S9"\n', "`who` is 'S9'; choose a number up to 1"),
    "too many": (BASE + QUADRATICS + STOP + "[[special]]\nwho = 2\n", "`who` is 2; choose a number up to 1"),
    "half random": (
        BASE + QUADRATICS + STOP + "[[absences]]\nwho = 1\npresent_s = 9\n",
        "needs both `present_s` and `away_s`",
    ),
    "backwards": (
        BASE + QUADRATICS + STOP + "[[absences]]\nwho = 1\nfrom_s = 9\nto_s = 8\n",
        "ends at 8 s, before it begins at 9 s",
    ),
    "codec": (BASE + 'codec = "zip"\n' + QUADRATICS + STOP, "codec 'zip'"),
    "codec of models": (BASE + 'model_codec = "zip"\n' + QUADRATICS + STOP, "codec 'zip'"),
    "keyframes": (BASE + "keyframe_every = 0\n" + QUADRATICS + STOP, "`int` >= 1"),
    "plan": (BASE + QUADRATICS + STOP + "[plan]\nsteps = 2\nwarmup_steps = 2\n", "warmup_steps is 2 of 2 steps"),
    "strategy": (
        BASE + QUADRATICS + STOP + '[aggregation]\nstrategy = "guess"\n',
        "[aggregation]: There is no strategy 'guess'",
    ),
    "field of a strategy": (
        BASE + QUADRATICS + STOP + "[strategies.mine]\nbuffer = 3\n",
        "[strategies.mine]: Object contains unknown field `buffer`",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_field(name: str) -> None:
    text, sentence = MISTAKES[name]
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("mine.toml")
    assert "\n" not in str(caught.value)


def test_the_smallest_scenario() -> None:
    scenario = parsed(BASE + QUADRATICS + STOP)
    assert scenario.names == ("S1",)
    assert scenario.rule("") == Aggregation()


def test_a_strategy_changes_the_aggregation_or_is_called_by_its_own_name() -> None:
    scenario = parsed(BASE + QUADRATICS + STOP + "[aggregation]\nbuffer_size = 7\n[strategies.mine]\npower = 0.25\n")
    mine, own = scenario.rule("mine"), scenario.rule("fedasync")
    assert (mine.buffer_size, mine.power) == (7, 0.25)
    assert (own.strategy, own.buffer_size) == ("fedasync", 7)
    with pytest.raises(UsageError, match=r"There is no strategy 'other'.*The scenario names mine\."):
        scenario.rule("other")


def test_a_file_and_a_ready_scenario_are_loaded_by_name(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text_of("hospitals-8"))
    assert load(str(path)) == load("hospitals-8")
    with pytest.raises(UsageError, match=r"There is no scenario 'nope'; name a TOML file, or one of .*hospitals-8"):
        load("nope")
    with pytest.raises(UsageError, match=r"There is no file .*missing\.toml; name one"):
        load(str(tmp_path / "missing.toml"))


def test_ready_scenarios_parse_and_have_a_target_and_strategies() -> None:
    assert set(ready()) >= {"hospitals-8", "label-unique-site-away", "heavy-tail-50", "phones-1000"}
    for name in ready():
        scenario = load(name)
        assert scenario.title
        assert scenario.strategies
        assert scenario.target is not None
