"""A whole simulated federation: broker, aggregator, sites and what befalls them, on one virtual clock."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from aggregator.journal import VersionRow
from aggregator.opening import initialise, replay, restore, rule_text
from aggregator.settings import Folder, Settings, Start
from broker.memory import MemoryBroker, MemoryLink
from broker.messages import Party
from broker.topology import SiteNames, Topology, federation_topology, stream_bytes
from deploy.history import Ledger
from deploy.ledger import Books
from deploy.simulation.aggregator import AggregatorActor
from deploy.simulation.cast import Part, drawn
from deploy.simulation.chance import source
from deploy.simulation.clock import Clock
from deploy.simulation.faults import kill, schedule, send_away, trouble_site
from deploy.simulation.learning import Learning, Vector
from deploy.simulation.scenario import Scenario
from deploy.simulation.signing import SimulatedJournal, SimulatedKey
from deploy.simulation.site import Pace, SiteActor

FEDERATION = "simulated"
START_AFTER_S = 600.0


class World:
    """`watch` is told of every new version: its row and its model, which changes later."""

    def __init__(
        self,
        scenario: Scenario,
        strategy: str,
        learning: Learning,
        seed: int,
        *,
        path: Path,
    ) -> None:
        self.scenario, self.learning, self.seed = scenario, learning, seed
        self.clock, self.broker = Clock(), MemoryBroker()
        self.watch: Callable[[VersionRow, Vector], None] = lambda _row, _model: None
        self.cast = drawn(scenario, learning.unique, seed)
        keys = source(seed, "keys")
        self._key = SimulatedKey.drawn(keys)
        self._site_keys = {name: SimulatedKey.drawn(keys) for name in scenario.names}
        self.journal, self.folder = SimulatedJournal(":memory:"), Folder(path)
        self.settings = self._settings(strategy)
        self._found(self.settings)
        self.aggregator = AggregatorActor(
            self.clock, self.broker, self.settings, self._key, journal=self.journal, folder=self.folder,
            watch=self._watched,
        )  # fmt: skip
        self.sites = {name: self._site(part) for name, part in self.cast.items()}

    def _watched(self, row: VersionRow, model: Vector) -> None:
        self.watch(row, model)

    def _settings(self, strategy: str) -> Settings:
        scenario = self.scenario
        here = sum(not part.joins_s and not part.is_away(0.0) for part in self.cast.values())
        return Settings(
            FEDERATION,
            self.learning.name,
            codec=scenario.codec,
            model_codec=scenario.model_codec,
            keyframe_every=scenario.keyframe_every,
            versions=scenario.stop.versions,
            presence_s=scenario.presence_s,
            plan=scenario.plan,
            aggregation=scenario.rule(strategy),
            start=Start(min_sites=max(1, here), start_after_s=START_AFTER_S),
        )

    def _found(self, settings: Settings) -> None:
        rule = rule_text(settings.aggregation)
        initialise(self.journal, self.folder, self.learning.layout, self.learning.initial.copy(), rule, at=0.0)
        self.journal.begin()
        here = [name for name, part in self.cast.items() if not part.joins_s]
        for name in here:
            self.journal.enrol(name, self._site_keys[name].public, name, at=0.0)
        self.journal.commit()
        size = stream_bytes(self.learning.layout.size)
        self._declare(federation_topology(FEDERATION, max_models_bytes=size))
        for name in here:
            self._declare(SiteNames(FEDERATION, name).topology())

    def _declare(self, topology: Topology) -> None:
        link = MemoryLink(self.broker, lambda _: None)
        link.open()
        link.declare(topology)
        link.close()

    def _site(self, part: Part) -> SiteActor:
        party = Party(FEDERATION, part.name, self._site_keys[part.name])
        pace = Pace(part.step_s, self.scenario.speeds.jitter)
        return SiteActor(
            self.clock, self.broker, party, self._key, self.learning.rounds(part.name),
            road=part.road, pace=pace, probe_s=self.scenario.probe_s, chance=source(self.seed, f"site {part.name}"),
        )  # fmt: skip

    # ---- running

    def run(self) -> None:
        """From the start to the scenario's end, or until somebody stops the clock."""
        self.aggregator.start()
        for name, part in self.cast.items():
            site = self.sites[name]
            for away in part.absences:
                send_away(self.clock, site, away)
            self.clock.at(part.joins_s, partial(self._join, name))
            trouble_site(self.clock, self.broker, self.scenario, part, site)
        faults = self.scenario.faults
        self.aggregator.restart_s = faults.restart_s
        chance = source(self.seed, "aggregator")
        schedule(self.clock, faults.aggregator_kills_per_hour, chance, partial(kill, self.aggregator, chance))
        self.clock.run(self.scenario.stop.seconds)

    def _join(self, name: str) -> None:
        if self.cast[name].joins_s:
            self._declare(SiteNames(FEDERATION, name).topology())
            self.aggregator.enrol(name, self._site_keys[name])
        site = self.sites[name]
        if site.wanted:
            site.start()

    # ---- what came of it

    def model(self) -> Vector:
        """Of the newest version that is journaled."""
        _, fold = restore(self.journal, self.folder, self.settings.aggregation)
        return fold.model

    def ledger(self) -> Ledger:
        """Every update that any site ever made, held against the journal."""
        made = {
            (name, site.outbox.incarnation, sequence): site.outbox.part(sequence, 0) is not None
            for name, site in self.sites.items()
            for sequence in range(1, site.outbox.last_sequence() + 1)
        }
        key = "SELECT site, incarnation, sequence FROM"
        accepted = tuple(map(tuple, self.journal.query(f"{key} updates")))
        refused = tuple(map(tuple, self.journal.query(f"{key} refused WHERE sequence IS NOT NULL")))
        return Books(made, accepted, refused).balance()

    def replays(self) -> bool:
        """Whether folding the journal again gives every version's digest."""
        return all(one.same for one in replay(self.journal, self.folder))

    def close(self) -> None:
        """Free memory and files."""
        self.aggregator.stop()
        for site in self.sites.values():
            site.stop()
            site.outbox.close()
        self.journal.close()
