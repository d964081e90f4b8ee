"""What settings and announcements may name as a codec: one of the wire, or a way of writing one."""

import re
from dataclasses import dataclass, replace
from typing import Final

from broker.codecs import levels
from broker.codecs.table import CODECS, Codec
from broker.errors import UsageError

USUAL_RATIO: Final = 100
AUTO: Final = "auto"  # whoever writes chooses: site_worker/choosing.py
_RATIOS: Final = 10, 10_000
_LOW_RANK: Final = re.compile(r"lowrank-([1-9][0-9]{1,4})")


@dataclass(frozen=True)
class Choice:
    """`name` is what an update says, `codec` how it is written; `ratio`, float32 over payload, where that is free."""

    name: str
    codec: Codec
    ratio: int = USUAL_RATIO


CHOICES: Final = {name: Choice(name, codec) for name, codec in CODECS.items()} | {
    "int8-coarse": Choice("int8", replace(CODECS["int8"], pack=levels.quantise_coarsely)),
}


def chosen(name: str) -> Choice:
    """What is meant by `name`; UsageError says what there is."""
    asked = _LOW_RANK.fullmatch(name)
    if asked is not None and _RATIOS[0] <= int(asked[1]) <= _RATIOS[1]:
        return replace(CHOICES["lowrank"], ratio=int(asked[1]))
    if name not in CHOICES:
        least, most = _RATIOS
        raise UsageError(
            f"There is no codec {name!r}; choose one of {', '.join(CHOICES)}, or lowrank-{least} to lowrank-{most}."
        )
    return CHOICES[name]


def require_choice(name: str) -> None:
    """UsageError unless `name` may be asked of a site: a choice, or `auto`."""
    if name != AUTO:
        chosen(name)


def codec_named(name: str) -> Codec:
    """How `name` is written; UsageError says what there is."""
    return chosen(name).codec
