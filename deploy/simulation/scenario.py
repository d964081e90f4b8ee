"""A scenario: what happens to whom in a simulated federation, read from a TOML file.

Times are virtual seconds since the start. Mistakes end in one sentence with file and field. docs/simulator.md explains
every table.
"""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from aggregator.settings import Aggregation, Plan
from broker.codecs import AUTO, require_choice
from broker.errors import UsageError
from broker.messages import MAX_DIFFERENCES
from broker.settings import parse_settings
from broker.topology import checked_name

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, lt=1)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Who = str | AtLeastOne
SHIPPED: Final = "deploy.simulation.scenarios"
SHORTHANDS: Final = ("all", "slowest", "fastest", "most-label-unique")


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of all tables."""


class TaskTable(Table, frozen=True):
    """[task]: real training. `name` is a task's spec, `options` those it gets, for each site [sites] may have more."""

    name: str
    options: dict[str, Any] = {}


class SurrogateTable(Table, frozen=True):
    """[surrogate]: quadratics instead of a task, for scale."""

    dimensions: AtLeastOne = 32
    spread: Positive = 1.0


class Sites(Table, frozen=True):
    """[sites]: how many, and how the rows of the task are divided among them."""

    number: AtLeastOne = 1
    names: tuple[str, ...] = ()
    split: Literal["even", "dirichlet", "quantity", "features", "natural"] = "even"
    alpha: Positive = 0.5
    skew: NotNegative = 1.0
    shift: NotNegative = 1.0
    held_out: Share = 0.2
    options: tuple[dict[str, Any], ...] = ()


class Speeds(Table, frozen=True):
    """[speeds]: seconds per training step. log-normal: `seconds` is the median; pareto: the fastest possible."""

    kind: Literal["same", "list", "log-normal", "pareto"] = "same"
    seconds: Positive = 1.0
    values: tuple[Positive, ...] = ()
    sigma: NotNegative = 1.0
    shape: Positive = 1.5
    jitter: NotNegative = 0.0


class Absence(Table, frozen=True):
    """[[absences]]: `who` is away from `from_s` until `to_s` (for good, if left out), or at random."""

    who: Who
    from_s: NotNegative = 0.0
    to_s: Positive | None = None
    present_s: Positive | None = None
    away_s: Positive | None = None
    how: Literal["stopped", "offline", "resting"] = "stopped"


class Links(Table, frozen=True):
    """[links]: every site's line to the broker; `*_mbit` 0 means no limit."""

    latency_s: NotNegative = 0.02
    up_mbit: NotNegative = 0.0
    down_mbit: NotNegative = 0.0
    drops_per_hour: NotNegative = 0.0
    down_for_s: Positive = 30.0


class Faults(Table, frozen=True):
    """[faults]: how often, per hour and site, what goes wrong. `restart_s`: until a killed process runs again."""

    kills_per_hour: NotNegative = 0.0
    aggregator_kills_per_hour: NotNegative = 0.0
    queue_deletions_per_hour: NotNegative = 0.0
    duplicates_per_hour: NotNegative = 0.0
    reorderings_per_hour: NotNegative = 0.0
    restart_s: Positive = 60.0


class Special(Table, frozen=True):
    """[[special]]: what is otherwise at the site(s) `who`; `joins_s` is when it first appears."""

    who: Who
    slower: Positive = 1.0
    joins_s: NotNegative | None = None
    up_mbit: NotNegative | None = None
    down_mbit: NotNegative | None = None
    drops_per_hour: NotNegative | None = None
    kills_per_hour: NotNegative | None = None


class Target(Table, frozen=True):
    """[target]: the value of a metric that is to be reached."""

    value: float
    metric: str = ""


class Stop(Table, frozen=True):
    """[stop]: the end, whichever comes first; 0 of versions or updates is no limit."""

    seconds: Positive
    versions: Annotated[int, Meta(ge=0)] = 0
    updates: Annotated[int, Meta(ge=0)] = 0


class Scenario(Table, frozen=True):
    """A whole file. `strategies` are tables that change [aggregation], by the name they are compared under."""

    title: str
    stop: Stop
    task: TaskTable | None = None
    surrogate: SurrogateTable | None = None
    sites: Sites = Sites()
    speeds: Speeds = Speeds()
    absences: tuple[Absence, ...] = ()
    links: Links = Links()
    faults: Faults = Faults()
    special: tuple[Special, ...] = ()
    plan: Plan = Plan()
    codec: str = "int8"
    model_codec: str = AUTO
    keyframe_every: Annotated[int, Meta(ge=1, le=MAX_DIFFERENCES)] = 20
    presence_s: Positive = 30.0
    probe_s: Positive = 60.0
    aggregation: dict[str, Any] = {}
    strategies: dict[str, dict[str, Any]] = {}
    target: Target | None = None

    def __post_init__(self) -> None:
        require_choice(self.codec)
        require_choice(self.model_codec)
        for name in self.sites.names:
            checked_name(name, "Site")
        for problem in (*_of_task(self), *_of_sites(self), *_of_times(self)):
            raise UsageError(problem)
        for name in ("", *self.strategies):
            self.rule(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The sites' names."""
        width = len(str(self.sites.number))
        numbered = tuple(f"S{number:0{width}}" for number in range(1, self.sites.number + 1))
        return self.sites.names or numbered

    def lasting(self, seconds: float) -> "Scenario":
        """The same for so many virtual seconds."""
        return msgspec.structs.replace(self, stop=msgspec.structs.replace(self.stop, seconds=seconds))

    def rule(self, strategy: str) -> Aggregation:
        """[aggregation] as changed by a strategy: "" as it is, a table of [strategies], or a strategy's own name."""
        named = self.strategies.get(strategy, {"strategy": strategy} if strategy else {})
        where = f"[strategies.{strategy}]" if strategy in self.strategies else "[aggregation]"
        try:
            rule = msgspec.convert(self.aggregation | named, type=Aggregation)
            rule.build()
        except msgspec.ValidationError as error:
            raise UsageError(f"{where}: {str(error).replace(' - at `$.', ' at `')}.") from error
        except UsageError as error:
            known = f" The scenario names {', '.join(self.strategies)}." if self.strategies else ""
            raise UsageError(f"{where}: {error}{known}") from error
        return rule


def _of_task(scenario: Scenario) -> list[str]:
    if (scenario.task is None) == (scenario.surrogate is None):
        return ["Give one of [task] and [surrogate]: what is learned."]
    split = scenario.sites.split
    if scenario.surrogate is not None and split != "even":
        return [f"The surrogate has no rows to split: leave out `sites.split`, which is {split!r}."]
    return []


def _of_sites(scenario: Scenario) -> list[str]:
    sites, speeds = scenario.sites, scenario.speeds
    if sites.names and (len(sites.names) != sites.number or len(set(sites.names)) != sites.number):
        return [f"`sites.names` has {len(set(sites.names))} different names for {sites.number} sites."]
    if (sites.split == "natural") != bool(sites.options):
        return ['`sites.options` and split = "natural" go together: the options of each site\'s own task.']
    if sites.options and len(sites.options) != sites.number:
        return [f"`sites.options` has {len(sites.options)} tables for {sites.number} sites."]
    if (speeds.kind == "list") != bool(speeds.values):
        return ['`speeds.values` and kind = "list" go together: seconds per step of each site.']
    if speeds.values and len(speeds.values) != sites.number:
        return [f"`speeds.values` has {len(speeds.values)} numbers for {sites.number} sites."]
    meant = [one.who for one in scenario.absences] + [one.who for one in scenario.special]
    choices = f"a number up to {sites.number}, a site's name, or one of {', '.join(SHORTHANDS)}"
    return [f"`who` is {who!r}; choose {choices}." for who in meant if not _is_known(who, scenario)]


def _is_known(who: Who, scenario: Scenario) -> bool:
    if isinstance(who, int):
        return who <= scenario.sites.number
    return who in SHORTHANDS or who in scenario.names


def _of_times(scenario: Scenario) -> list[str]:
    for one in scenario.absences:
        if (one.present_s is None) != (one.away_s is None):
            return [f"An absence of {one.who!r} at random needs both `present_s` and `away_s`, their means."]
        if one.to_s is not None and one.to_s <= one.from_s:
            return [f"An absence of {one.who!r} ends at {one.to_s:g} s, before it begins at {one.from_s:g} s."]
    return []


def load(name: str) -> Scenario:
    """The scenario in a file, or the ready one of that name; UsageError names file and field."""
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        try:
            text = path.read_text()
        except FileNotFoundError as error:
            known = ", ".join(ready())
            raise UsageError(f"There is no file {path}; name one, or a ready scenario: {known}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is not a readable TOML file: {error}.") from error
        return parse(text, path)
    return parse(text_of(name), Path(f"{name}.toml"))


def parse(text: str, path: Path) -> Scenario:
    """The scenario in `text`, which is in `path`."""
    return parse_settings(text, Scenario, path=path, environ={})


def text_of(name: str) -> str:
    """The TOML of a ready scenario; UsageError names those that there are."""
    if name not in ready():
        raise UsageError(f"There is no scenario {name!r}; name a TOML file, or one of {', '.join(ready())}.")
    return resources.files(SHIPPED).joinpath(f"{name}.toml").read_text("utf-8")


def ready() -> tuple[str, ...]:
    """Names of the ready scenarios."""
    found = (one.name for one in resources.files(SHIPPED).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))
