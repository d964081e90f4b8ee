"""What a column probably is, by its name and values over all files: a number, a category, the label, or nothing useful.

Guesses, each with its reason, to be read by a person before anybody trains; docs/data.md lists the rules. A label is
chosen only where one column alone offers itself.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker.errors import UsageError
from site_worker.tabular.profile import SIGNS, Profile, any_number
from site_worker.tabular.schema import Column, Label, text_of

MOST_TEXTS: Final = 30  # a text column of more values is free text to us
MOST_CODES: Final = 6  # whole numbers of so few values are codes ...
ROWS_A_CODE: Final = 10  # ... if there are so many rows to each
ROWS_TO_IDENTIFY: Final = 10  # fewer may all differ by chance
INDICATOR_FROM: Final = 0.05  # share of missing cells from which missing itself may tell something

IDENTIFIERS: Final = frozenset({"id", "mrn", "uuid", "pid", "pseudonym", "identifier"})
NUMBERED: Final = frozenset(
    {"nr", "no", "number", "index", "row", "record", "case", "patient", "subject", "key", "code"}
)
TARGETS: Final = frozenset({"label", "target", "outcome", "y"})
OUTCOMES: Final = TARGETS | {
    *("class", "died", "death", "dead", "deceased", "mortality", "survived", "event", "status", "num", "diagnosis"),
    *("disease", "readmitted", "readmission", "relapse", "recurrence", "response", "complication", "sepsis"),
}
EVENTS: Final = frozenset({"event", "status", "died", "death", "dead", "deceased", "relapse", "recurrence"})
TIMES: Final = re.compile(
    r"time|fu(time|days)|followup(time|days|months|years)?|(survival|os|pfs)(time|days|months)|timeto.*"
)
YES: Final = frozenset({"1", "yes", "y", "true", "t", "positive", "pos", "+", "died", "dead", "deceased", "malignant"})
NO: Final = frozenset(
    {"0", "no", "n", "false", "f", "negative", "neg", "alive", "lives", "survived", "benign", "censored"}
)


@dataclass(frozen=True)
class Seen:
    """A column over all files: its profile in each that has it, in all together, and which sites lack it."""

    name: str
    sites: Mapping[str, Profile]
    lacking: Sequence[str]
    unreadable: str = ""

    @property
    def profile(self) -> Profile:
        """Over all files."""
        return Profile.joined(self.sites.values())


def missing_codes(profile: Profile) -> list[str]:
    """What means missing in this column, beside the texts that mean it everywhere: signs, words, impossible numbers."""
    signs = sorted(SIGNS & profile.missing.keys())
    words = [] if profile.others else sorted(profile.words)
    return [*signs, *words, *(f"{code:g}" for code in sorted(profile.codes) if _is_impossible(code, profile))]


def values_of(profile: Profile, missing: Collection[str]) -> Counter[str]:
    """Known values, without the texts `missing`, and how many rows have each; not all if the profile has many."""
    codes = {f"{code:g}": count for code, count in profile.codes.items()}
    found = [*profile.values.items(), *codes.items()]
    return Counter({text: count for text, count in found if text not in missing})


def known(profile: Profile, missing: Collection[str]) -> int:
    """How many rows have a known value, however many values there are."""
    spared = [(f"{code:g}", count) for code, count in profile.codes.items()] + list(profile.words.items())
    return profile.numbers + profile.others + sum(count for text, count in spared if text not in missing)


def role_of(seen: Seen) -> tuple[Column, str]:
    """The column as it would be declared, and why."""
    profile, optional = seen.profile, bool(seen.lacking)
    missing = tuple(missing_codes(profile))
    values = values_of(profile, missing)
    if reason := _reason_to_ignore(seen, profile, values):
        return Column("ignore"), reason
    if profile.numbers and not profile.others and not _are_codes(profile, values):
        often = profile.rows - known(profile, missing)
        indicator = often >= INDICATOR_FROM * profile.rows
        reason = "numbers only" + (f", missing in {often} of {profile.rows} rows" if often else "")
        return Column("number", optional=optional, indicator=indicator, missing=missing), reason
    categories = tuple(sorted(values, key=_in_order))
    codes = 'few whole numbers, taken for codes; if they are amounts: role = "number"' if not profile.others else ""
    return Column(
        "category", categories=categories, optional=optional, missing=missing
    ), codes or f"texts of at most {MOST_TEXTS} values"


def label_of(columns: Sequence[Seen], *, named: bool) -> tuple[Label | None, str, list[Label]]:
    """The label, why, and the other columns that could be it; `named` says that the files have headers."""
    possible = {seen.name: label for seen in columns if (label := _label(seen)) is not None}
    if (survival := _survival(columns, possible)) is not None:
        return survival, "a time of observation and an event with two values make it a survival table", []
    called = [name for name in possible if _words(name) & OUTCOMES]
    strongest = [name for name in called if _words(name) & TARGETS] if len(called) > 1 else called
    if len(strongest) == 1:
        others = [possible[name] for name in called if name not in strongest]
        return possible[strongest[0]], "of the columns with few values the one that is named as an outcome", others
    last = columns[-1].name
    if not named and last in possible:
        return possible[last], "the last column, which has few values; without a header names tell nothing", []
    return None, "", [possible[name] for name in called] or list(possible.values())


def label_named(columns: Sequence[Seen], name: str) -> tuple[Label | None, str, list[Label]]:
    """The label that a person named; UsageError if it cannot be one, with the columns that can."""
    possible = {seen.name: label for seen in columns if (label := _label(seen)) is not None}
    if name not in possible:
        choices = ", ".join(possible) or "none, since no column has two values at every site"
        raise UsageError(f"Column {name!r} cannot be the label; those that can: {choices}.")
    return possible[name], "as asked for", []


def _reason_to_ignore(seen: Seen, profile: Profile, values: Mapping[str, int]) -> str:
    words = _words(seen.name)
    different = not profile.repeats and profile.numbers + profile.others >= ROWS_TO_IDENTIFY
    counting = all(_counts_rows(one) for one in seen.sites.values())
    number = profile.numbers and not profile.others
    rules = {
        f"holds {seen.unreadable}": seen.unreadable,
        "no value is known": not values,
        "an identifier by its name": words & IDENTIFIERS,
        "an identifier: all values differ": different and (not number or words & NUMBERED or counting),
        "one value everywhere": len(values) == 1 and not profile.many,
        "dates: store an age or a number of days instead": profile.dates and profile.dates == profile.others,
        f"texts of more than {MOST_TEXTS} values": not profile.numbers and (profile.many or len(values) > MOST_TEXTS),
        _mixed(profile): profile.numbers and profile.others and (profile.many or len(values) > MOST_TEXTS),
    }
    return next((reason for reason, holds in rules.items() if holds), "")


def _counts_rows(profile: Profile) -> bool:
    return profile.whole and profile.low in (0, 1) and profile.high - profile.low + 1 == profile.numbers


def _mixed(profile: Profile) -> str:
    path, row = profile.odd or (None, 0)
    return (
        f"numbers, but for {profile.others} of {profile.numbers + profile.others} cells, the first in row {row} of "
        f'{path.name if path else ""}: correct them, or list their texts in missing, and set role = "number"'
    )


def _are_codes(profile: Profile, values: Mapping[str, int]) -> bool:
    few = 3 <= len(values) <= MOST_CODES and not profile.many
    return few and profile.whole and profile.low >= 0 and profile.numbers >= ROWS_A_CODE * len(values)


def _is_impossible(code: float, profile: Profile) -> bool:
    """A code among texts, or far from all other numbers: below 0 where none is, or over four times the largest."""
    if not profile.numbers:
        return bool(profile.others)
    return profile.low >= 0 if code < 0 else profile.high < code / 4


def _label(seen: Seen) -> Label | None:
    """The column as a label, if every site has one in it and it has two values, or grades from 0."""
    profile = seen.profile
    missing = tuple(missing_codes(profile))
    values, everywhere = values_of(profile, missing), all(known(one, missing) for one in seen.sites.values())
    if seen.lacking or seen.unreadable or profile.many or not everywhere or _words(seen.name) & IDENTIFIERS:
        return None
    lower = {text: text.lower() for text in values}
    positive = tuple(sorted(text for text in values if lower[text] in YES))
    negative = tuple(sorted(text for text in values if lower[text] in NO))
    if positive and negative and len(positive) + len(negative) == len(values):
        return Label(seen.name, positive=positive, negative=negative, missing=missing)
    if len(values) == 2:
        number = not profile.others
        low, high = sorted(values, key=_in_order if number else lambda text: (-values[text], text))
        return Label(seen.name, positive=(high,), negative=(low,), missing=missing)
    graded = profile.numbers and not profile.others and profile.whole and profile.low == 0
    if graded and 3 <= len(values) <= MOST_CODES:
        return Label(seen.name, above=0.0, missing=missing)
    return None


def _survival(columns: Sequence[Seen], possible: Mapping[str, Label]) -> Label | None:
    """A time and an event, if each is the only one and every site has rows that know both."""
    events = [seen for seen in columns if seen.name in possible and _words(seen.name) & EVENTS]
    times = [seen for seen in columns if TIMES.fullmatch("".join(_words_in_order(seen.name))) and not seen.lacking]
    times = [seen for seen in times if seen.profile.numbers and not seen.profile.others and seen.profile.low >= 0]
    if len(events) != 1 or len(times) != 1 or not possible[events[0].name].positive:
        return None
    event = possible[events[0].name]
    missing = tuple(dict.fromkeys([*map(text_of, event.missing), *missing_codes(times[0].profile)]))
    both = [
        known(events[0].sites[site], missing) + known(one, missing) - one.rows for site, one in times[0].sites.items()
    ]
    if min(both) <= 0 or {*event.positive, *event.negative} & set(
        missing
    ):  # more known cells than rows: one knows both
        return None
    return Label(
        time=times[0].name, event=event.column, positive=event.positive, negative=event.negative, missing=missing
    )


def _words(name: str) -> frozenset[str]:
    return frozenset(_words_in_order(name))


def _words_in_order(name: str) -> list[str]:
    """The words of a column's name: patient_id, PatientID and "patient id" have the same two."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word]


def _in_order(text: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    value = any_number(text, comma=True)
    return value is None, value or 0.0, text
