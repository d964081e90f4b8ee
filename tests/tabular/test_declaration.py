"""federation.toml: every mistake is one sentence with the file and the field, and the task's name is its meaning."""

import re
from pathlib import Path

import msgspec
import pytest

from broker.errors import UsageError
from site_worker.tabular.declaration import Declaration, load_declaration, site_files
from site_worker.tabular.profile import CODES, SIGNS, WORDS
from site_worker.tabular.schema import MISSING, Column, Files, Label, Metrics, Model, Run
from tests.tabular.bench import AGE, HEAD, LABEL, SEX, SIMPLE, SURVIVAL, declared, loaded, written

MLP = SIMPLE.replace("logistic", "mlp")
DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    assert (found.name, found.task, found.own_task) == ("icu", "logistic", None)
    assert found.files == Files(
        header=True, names=(), delimiter=",", decimal=".", missing=("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")
    )
    assert found.files.held_out == 0.25
    assert found.run == Run(versions=40, minutes=0.0, seed=0)
    assert found.metrics.histograms
    assert (found.plan, found.aggregation, found.sites) == ({}, {}, {})
    assert found.features == {"age": Column("number"), "sex": Column("category", categories=("F", "M"))}
    assert found.required == ("died", "age", "sex")


def test_tables_of_other_programs_are_handed_on_as_they_are(tmp_path: Path) -> None:
    found = loaded(tmp_path, SIMPLE + "[plan]\nsteps = 20\n[aggregation]\nbuffer_size = 2\n[run]\nseed = 3\n")
    assert (found.plan, found.aggregation, found.run.seed) == ({"steps": 20}, {"buffer_size": 2}, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing required field `name`"),
        (SIMPLE.replace("icu", "i c u"), "Federation name 'i c u' cannot be used"),
        (
            SIMPLE.replace("logistic", "forest"),
            "choose one of logistic, mlp, cox, or an own task written as model.py:fun",
        ),
        (SIMPLE + "colums = 1\n", "unknown field `colums`"),
        (SIMPLE + "[model]\nhidden = [8]\n", '[model] is for task "mlp"'),
        (MLP + "[model]\nhidden = []\n", "at `model.hidden`"),
        (MLP + "[model]\nhidden = [0]\n", "at `model.hidden"),
        (MLP + "[model]\ndropout = 1.0\n", "at `model.dropout`"),
        (SIMPLE + "[files]\ndelimiter = ':'\n", "Invalid enum value ':' at `files.delimiter`"),
        (SIMPLE + "[files]\nheld_out = 1.0\n", "at `files.held_out`"),
        (SIMPLE + "[files]\nnames = ['age']\n", "files.names is for files without a header"),
        (SIMPLE + "[files]\nheader = false\n", "give files.names"),
        (SIMPLE + "[files]\nheader = false\nnames = ['a', 'a']\n", "a different name for each"),
        (SIMPLE + "[files]\nheader = false\nnames = ['died', 'age']\n", "files.names lacks 'sex'"),
        (SIMPLE + "[files]\ndecimal = ';'\n", "Invalid enum value ';' at `files.decimal`"),
        (HEAD + AGE, "choose the label"),
        (SIMPLE.replace('"died"', '""'), "choose the label"),
        (SIMPLE.replace('positive = ["1"]', "positive = []"), "say which rows are positive"),
        (SIMPLE.replace("negative", "above = 1.0\nnegative"), "say which rows are positive"),
        (SIMPLE.replace('positive = ["1"]', "above = 50.0"), "label.negative goes with label.positive"),
        (SIMPLE.replace('negative = ["0"]', 'negative = ["1"]'), "label: '1' stands for two of"),
        (SIMPLE.replace('negative = ["0"]', 'negative = ["?"]'), "label: '?' stands for two of"),
        (SIMPLE.replace('column = "died"', 'column = "died"\ntime = "days"'), 'are for task "cox"'),
        (SURVIVAL.replace('time = "days"', ""), 'choose the label of task "cox"'),
        (SURVIVAL.replace("days", "died"), "are the same column"),
        (SURVIVAL.replace('time = "days"', 'time = "days"\ncolumn = "died"'), "label.column and label.above are not"),
        (HEAD + LABEL, "no column has the role number or category"),
        (HEAD + LABEL + '[columns.age]\nrole = "ignore"\n', "no column has the role number or category"),
        (SIMPLE.replace('"number"', '"numbre"'), "Invalid enum value 'numbre'"),
        (SIMPLE + '[columns.died]\nrole = "number"\n', "columns.died is the label"),
        (SIMPLE.replace('"number"', '"number"\nother = true'), 'columns.age: only role = "category" has'),
        (SIMPLE.replace('"category"', '"category"\nindicator = true'), 'columns.sex: only role = "number" has'),
        (SIMPLE.replace('["F", "M"]', "[]"), "columns.sex: list its categories"),
        (SIMPLE.replace('["F", "M"]', '["F", "F"]'), "columns.sex.categories lists 'F' twice"),
        (SIMPLE.replace('["F", "M"]', '["F", "NA"]'), "columns.sex: 'NA' is a category and means missing"),
        (SIMPLE + '[sites."a b"]\nfile = "x.csv"\n', "Site name 'a b' cannot be used"),
        (SIMPLE + "[sites.north]\nfile = 3\n", "sites.north.file must be the name of a file"),
        (SIMPLE + "[sites.north]\nward = 3\n", "sites.north takes nothing but file"),
        ("name = ", "is not a readable TOML file"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, text)
    sentence = str(caught.value)
    assert said in sentence
    assert str(tmp_path / "federation.toml") in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_no_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"`fedqueue local {tmp_path} --init` drafts one"):
        load_declaration(tmp_path / "federation.toml")


def test_the_environment_overrides_nothing_that_hospitals_agreed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDQUEUE_NAME", "other")
    monkeypatch.setenv("FEDQUEUE_FILES__HELD_OUT", "0.5")
    found = loaded(tmp_path)
    assert (found.name, found.files.held_out) == ("icu", 0.25)


def test_numbers_and_booleans_stand_for_their_texts(tmp_path: Path) -> None:
    texts = loaded(tmp_path, SIMPLE.replace('positive = ["1"]', 'positive = ["1", "true"]')).task_name
    values = loaded(tmp_path, SIMPLE.replace('positive = ["1"]', "positive = [true, 1]")).task_name
    assert texts == values


@pytest.mark.parametrize(
    "text",
    [
        SIMPLE + '[columns.id]\nrole = "ignore"\n',
        SIMPLE + "[files]\nheld_out = 0.5\ndelimiter = ';'\ndecimal = ','\n",
        SIMPLE + "[metrics]\nhistograms = false\n",
        SIMPLE + "[plan]\nsteps = 1\n[run]\nversions = 3\n",
        SIMPLE.replace('"number"', '"number"\noptional = true'),
    ],
)
def test_what_does_not_change_the_model_does_not_change_the_tasks_name(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text).task_name == "icu-logistic-04696a75"  # sites of two releases must agree on it


@pytest.mark.parametrize(
    "text",
    [
        SIMPLE.replace("icu", "ward"),
        MLP,
        SIMPLE.replace('["F", "M"]', '["M", "F"]'),
        SIMPLE.replace('["F", "M"]', '["F", "M"]\nother = true'),
        SIMPLE.replace('"number"', '"number"\nindicator = true'),
        SIMPLE.replace('"number"', '"number"\nmissing = ["-9"]'),
        SIMPLE.replace('positive = ["1"]', 'positive = ["1", "2"]'),
        HEAD + LABEL + SEX + AGE,
        HEAD + LABEL.replace("died", "dead") + AGE + SEX,
        HEAD + LABEL + AGE.replace("age", "years") + SEX,
        HEAD + LABEL + AGE,
        SIMPLE + "[files]\nmissing = ['']\n",
    ],
)
def test_what_changes_the_model_changes_the_tasks_name(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text).task_name != "icu-logistic-04696a75"


def test_the_network_is_in_the_tasks_name(tmp_path: Path) -> None:
    names = {
        loaded(tmp_path, MLP + more).task_name for more in ("", "[model]\nhidden = [8]\n", "[model]\ndropout = 0.5\n")
    }
    assert len(names) == 3


def test_the_longest_name_fits_the_wire(tmp_path: Path) -> None:
    name = loaded(tmp_path, SIMPLE.replace("icu", "x" * 48)).task_name
    assert len(name) <= 64
    assert name != loaded(tmp_path, SIMPLE.replace("icu", "x" * 47)).task_name


def test_an_own_task_is_a_file_and_a_function_and_needs_no_columns(tmp_path: Path) -> None:
    found = loaded(tmp_path, 'name = "icu"\ntask = "model.py:sepsis"\n[sites.north]\nward = 3\nfile = "n.npz"\n')
    assert found.own_task == ("model.py", "sepsis")
    assert found.sites == {"north": {"ward": 3, "file": "n.npz"}}


@pytest.mark.parametrize(
    ("file", "site"),
    [
        ("north.csv", "north"),
        ("Köln 2.tsv", "Koln-2"),
        ("St. Mary's.parquet", "St-Mary-s"),
        ("models.csv", "site-models"),
        ("__x__.CSV", "x"),
        ("a" * 60 + ".csv", "a" * 48),
    ],
)
def test_a_site_is_named_after_its_file(tmp_path: Path, file: str, site: str) -> None:
    path = written(tmp_path, "", file)
    assert site_files(tmp_path) == {site: path}


def test_only_tables_are_sites_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.csv", "a.tsv", ".hidden.csv", "notes.txt", "federation.toml"):
        written(tmp_path, "", name)
    (tmp_path / "old.csv").mkdir()
    assert list(site_files(tmp_path)) == ["a", "b"]


def test_two_files_for_one_site_and_a_file_for_none_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "", "a b.csv")
    written(tmp_path, "", "a-b.csv")
    with pytest.raises(UsageError, match="both make site 'a-b'; rename one"):
        site_files(tmp_path)
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    written(nameless, "", "!!.csv")
    with pytest.raises(UsageError, match="makes no name of a site"):
        site_files(nameless)
    with pytest.raises(UsageError, match="There is no folder"):
        site_files(tmp_path / "absent")


def test_sites_can_be_renamed(tmp_path: Path) -> None:
    export, south = written(tmp_path, "", "export_2024.csv"), written(tmp_path, "", "south.csv")
    found = loaded(tmp_path, SIMPLE + '[sites.north]\nfile = "export_2024.csv"\n')
    assert found.files_of(tmp_path) == {"north": export, "south": south}
    with pytest.raises(UsageError, match=r"correct sites.north.file"):
        loaded(tmp_path, SIMPLE + '[sites.north]\nfile = "absent.csv"\n').files_of(tmp_path)
    with pytest.raises(UsageError, match="Site 'south' has two files"):
        loaded(tmp_path, SIMPLE + '[sites.south]\nfile = "export_2024.csv"\n').files_of(tmp_path)


def test_the_texts_that_mean_missing_by_default_are_no_category(tmp_path: Path) -> None:
    for text in MISSING:
        with pytest.raises(UsageError, match="is a category and means missing"):
            loaded(tmp_path, SIMPLE.replace('["F", "M"]', f'["F", "{text}"]'))
    declared(tmp_path, SIMPLE.replace('["F", "M"]', '["F", "missing"]'))
    assert load_declaration(tmp_path / "federation.toml").columns["sex"].categories == ("F", "missing")


def test_the_declaration_of_the_documents_loads_and_names_every_field(tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)[0]
    found = loaded(tmp_path, text)
    assert found.files == Files()
    assert found.run == Run()
    assert (found.label.positive, found.columns["lactate"].missing) == (("1", "yes"), ("-9", "unknown"))
    structs = (Declaration, Files, Label, Column, Model, Metrics, Run)
    fields = {field.name for struct in structs for field in msgspec.structs.fields(struct)}
    assert {name for name in fields if not re.search(rf"\b{name}\b", DOCUMENT)} == set()


def test_the_documents_name_every_text_that_a_draft_takes_for_missing() -> None:
    texts = {*SIGNS, *WORDS}
    assert {text for text in texts if f"`{text}`" not in DOCUMENT} == set()
    assert all(f"{code:g}" in DOCUMENT for code in CODES)
