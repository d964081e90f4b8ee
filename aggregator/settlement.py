"""What has been settled of each site's updates, and the cumulative receipts that say so."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from aggregator.journal import Journal
from broker.drive import Publish
from broker.link import Outgoing
from broker.messages import Party, Receipt, bitmap
from broker.topology import SiteNames, rounds_exchange

REFUSALS_LISTED: Final = 500
BEYOND_LISTED: Final = 10_000
REASON_CHARS: Final = 400


@dataclass
class Settlement:
    """Sequences of one (site, incarnation): all up to `through`, those in `beyond`, and the reasons of the refused."""

    through: int = 0
    beyond: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)

    @classmethod
    def restored(cls, accepted: Iterable[int], refused: Mapping[int, str]) -> "Settlement":
        """From the journal."""
        reasons = {sequence: reason[:REASON_CHARS] for sequence, reason in refused.items()}
        settlement = cls(beyond={*accepted, *refused}, refused=reasons)
        settlement._advance()
        return settlement

    def __contains__(self, sequence: int) -> bool:
        return sequence <= self.through or sequence in self.beyond

    def settle(self, sequence: int, reason: str | None = None) -> None:
        """Note a sequence as accepted, or as refused for `reason`. Once settled it stays as it is."""
        if sequence in self:
            return
        self.beyond.add(sequence)
        if reason is not None:
            self.refused[sequence] = reason[:REASON_CHARS]
        self._advance()

    def forget(self, known: int) -> None:
        """Drop the reasons that the site has read."""
        for sequence in [one for one in self.refused if one <= known]:
            del self.refused[sequence]

    def receipt(self, incarnation: bytes, *, answers: int) -> Receipt:
        """The receipt as of now. It stops before a refusal that it has no room for, so it never claims too much."""
        listed = sorted(self.refused)
        limit = listed[REFUSALS_LISTED] - 1 if len(listed) > REFUSALS_LISTED else (1 << 62)
        return Receipt(
            incarnation,
            min(self.through, limit),
            sorted(one for one in self.beyond if one <= limit)[:BEYOND_LISTED],
            [(one, self.refused[one]) for one in listed[:REFUSALS_LISTED]],
            answers,
        )

    def _advance(self) -> None:
        while self.through + 1 in self.beyond:
            self.through += 1
            self.beyond.remove(self.through)


class Receipts:
    """Settlements of all sites; one receipt in flight a site, what is settled meanwhile goes into the next."""

    def __init__(self, party: Party, journal: Journal, answers: Mapping[str, int]) -> None:
        self._party, self._journal, self._answers = party, journal, dict(answers)
        self._settlements: dict[tuple[str, bytes], Settlement] = {}
        self._due: dict[str, bytes] = {}
        self._in_flight: set[str] = set()

    def of(self, site: str, incarnation: bytes, *, known: int) -> Settlement:
        """The settlement of one incarnation, whose site has read receipts through `known`; a receipt becomes due."""
        key = (site, incarnation)
        if key not in self._settlements:
            for other in [one for one in self._settlements if one[0] == site]:
                del self._settlements[other]  # an older incarnation's; the journal has it
            self._settlements[key] = Settlement.restored(*self._journal.settled(*key))
        self._settlements[key].forget(known)
        self._due[site] = incarnation
        return self._settlements[key]

    def answer(self, site: str, nonce: int) -> None:
        """The newest hello of the site, which the next receipt names."""
        self._answers[site] = nonce

    def left(self, token: Any) -> None:
        """A receipt was confirmed or returned: the next may go."""
        if token[0] == "receipt":
            self._in_flight.discard(token[1])

    def leave(self) -> list[Publish]:
        """The receipts that can go now."""
        ready = [site for site in self._due if site not in self._in_flight]
        return [self._publish(site, self._due.pop(site)) for site in ready]

    def _publish(self, site: str, incarnation: bytes) -> Publish:
        self._in_flight.add(site)
        receipt = self._settlements[site, incarnation].receipt(incarnation, answers=self._answers.get(site, 0))
        if unfinished := self._journal.transfers.unfinished(site, incarnation):
            sequence, parts = unfinished
            receipt = msgspec.structs.replace(receipt, arrived=[(sequence, bitmap(parts))])
        key = SiteNames(self._party.federation, site).receipt_key
        sealed = self._party.seal(receipt, to=site)
        return Publish(Outgoing(rounds_exchange(self._party.federation), key, sealed, ("receipt", site)))
