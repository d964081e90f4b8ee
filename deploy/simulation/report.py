"""The report of a comparison: one HTML file with nothing beside it, in the dress of a run's report."""

from collections.abc import Sequence
from pathlib import Path

from deploy.report import drawing_libraries, style, template_of, write_page
from deploy.simulation.comparison import by_strategy, figures, sentences, title_of
from deploy.simulation.result import Result
from deploy.simulation.scenario import Scenario


def render(scenario: Scenario, name: str, results: Sequence[Result]) -> str:
    """The page. UsageError if the drawing libraries are missing."""
    with drawing_libraries():
        from markupsafe import Markup  # noqa: PLC0415

        from deploy.simulation import plots  # noqa: PLC0415

        template = template_of("deploy.simulation", "report.html.j2")
    runs = by_strategy(results)
    drawn = {
        "curves": plots.curves(scenario, runs),
        "target": plots.times_to_target(runs),
        "worst": plots.worst_sites(runs),
        "participation": plots.participation(runs),
        "staleness": plots.staleness(runs),
    }
    rows = {strategy: {one.name: one for one in figures(each)} for strategy, each in runs.items()}
    columns = [one.name for one in figures(results) if scenario.target is not None or one.name != "to target"]
    page: str = template.render(
        style=style(),
        scenario=scenario,
        name=name,
        seeds=len({one.seed for one in results}),
        seconds=max(one.seconds for one in results),
        updates=sum(one.ledger.accepted for one in results),
        sound=all(one.sound for one in results),
        sentences=sentences(scenario, results),
        metric=results[0].metric,
        columns=columns,
        rows=[(title_of(strategy), [known.get(column) for column in columns]) for strategy, known in rows.items()],
        classes=[(f"s{number}", label) for number, (_, _, label) in enumerate(plots.CLASSES)],
        absent=sorted({site for one in results for site in one.absent}),
        **{key: Markup(svg) for key, svg in drawn.items()},  # noqa: S704 - SVG, names escaped by its writer
    )
    return page


def write(scenario: Scenario, name: str, results: Sequence[Result], path: Path) -> None:
    """Render to `path`, whole or not at all."""
    write_page(render(scenario, name, results), path)
