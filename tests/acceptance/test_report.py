"""`fedqueue report` beside an aggregator that runs: it reads what is there, and disturbs nothing."""

from deploy.local import SitePlan
from tests.acceptance.books import settled
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation


def test_a_report_is_made_while_everything_runs(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {"site": 1}, 0.05), SitePlan("b", {"site": 2}, 0.05), versions=12)
    federation.start()
    federation.reaches(3)
    page = federation.path / "report.html"
    ran = fedqueue("report", federation.aggregator.path, "--out", page)
    assert (ran.returncode, ran.stderr) == (0, "")
    text = page.read_text("utf-8")
    assert "The aggregator was running, connected." in text
    assert "auc by model version, of each site and their mean" in text
    federation.reaches(12)
    federation.finished()
    settled(federation)
