"""A model card as Markdown, for people.

Names of sites, metrics and tensors come from elsewhere: they stand in code spans, where nothing is markup, without the
few characters that could end one.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from aggregator.card import Card, Evaluation

LIMITS: Final = """\
## What this card does not say

- **Privacy.** The model was made from patients' records. Parts of them, or that a person was among them, may be
  inferred from its weights. Nothing here says otherwise, and whether sites protected their updates is not recorded. Do
  not call the model anonymous without an assessment of this model.
- **Quality elsewhere.** The measures are on each site's own held-out rows. They say nothing of other patients, and
  nothing of subgroups.
- **Truth of the figures.** Rows and measures are what sites said of themselves; nobody has verified them.
- **Fitness for use.** It is the result of training, not a medical device.
"""
_IN_CODE: Final = str.maketrans({"`": "'", "|": "\u00a6", "\\": "\u29f5"})


def to_markdown(card: Card) -> str:
    """The card's text."""
    return "\n".join(
        [
            f"# Model card: {_code(card.federation)}, version {card.version}\n",
            _table(("fact", "value"), _facts(card)),
            "## Sites\n",
            _sites(card),
            "## Measures\n",
            _measures(card),
            "## Aggregation\n",
            "The rule of this version; earlier ones may have had another.\n",
            _table(("setting", "value"), [(_code(name), _setting(name, value)) for name, value in card.rule.items()]),
            "## Layout\n",
            "Tensors in this order make the vector of parameters, all float32.\n",
            _table(("tensor", "shape"), [(_code(name), _shape(shape)) for name, shape in card.tensors]),
            LIMITS,
        ]
    )


def _facts(card: Card) -> list[tuple[str, str]]:
    return [
        ("federation", _code(card.federation)),
        ("task", _code(card.task)),
        ("version", str(card.version)),
        ("digest (SHA-256 of layout and values)", _code(card.digest)),
        ("parameters", str(card.parameters)),
        ("made", card.made_at),
        ("updates in it", str(sum(member.updates for member in card.sites))),
        ("refused until then", str(card.refused)),
    ]


def _sites(card: Card) -> str:
    if not card.sites:
        return "None: this is the model that the federation started from.\n"
    rows = [
        (_code(one.site), str(one.updates), str(one.examples), f"{one.mean_staleness:.2f}", f"{one.share:.1%}")
        for one in card.sites
    ]
    head = "Examples are the training rows of the newest update; the share is of the factors of all deltas.\n"
    return f"{head}\n" + _table(("site", "updates", "examples", "mean staleness", "share of the weight"), rows)


def _measures(card: Card) -> str:
    if not card.evaluations:
        return "No site has evaluated this version or one before it.\n"
    names = sorted(card.means)
    rows = [_measured(one, card.version, names) for one in card.evaluations]
    total = str(sum(one.rows for one in card.evaluations))
    version = str(card.evaluations[0].version) if card.of_one_version else "different"
    rows.append(("mean by rows", version, total, *_values(card.means, names)))
    head = "As measured by the sites before they trained from it.\n"
    columns = ("site", "version", "held-out rows", *map(_code, names))
    return f"{head}\n{_table(columns, rows)}{_pooled(card)}"


def _measured(one: Evaluation, version: int, names: list[str]) -> tuple[str, ...]:
    of = "this" if one.version == version else f"{one.version} (older)"
    return (_code(one.site), of, str(one.rows), *_values(one.metrics, names))


def _values(measures: Mapping[str, float], names: list[str]) -> list[str]:
    return [f"{measures[name]:.4g}" if name in measures else "-" for name in names]


def _pooled(card: Card) -> str:
    """What the sites' counts say of all rows together; the bound holds where they are of one model."""
    found = [
        f"{name} {card.pooled[name]:.4g}" + (f" (within {card.pooled[f'{name}_bound']:.2g})" * card.of_one_version)
        for name in ("auc", "calibration")
        if name in card.pooled
    ]
    if not found:
        return ""
    versions = "" if card.of_one_version else ", of different versions, so only roughly"
    return f"\nOver the rows of all sites together, from their score histograms{versions}: {', '.join(found)}.\n"


def _setting(name: str, value: object) -> str:
    if value is None:
        return "the strategy's own" if name in ("server_rate", "staleness") else "none"
    return _code(str(value))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _code(name: str) -> str:
    """A foreign name as a code span that stays one, also within a table."""
    shown = "".join(one if one.isprintable() else "\ufffd" for one in name).translate(_IN_CODE)
    return f"`{shown}`"
