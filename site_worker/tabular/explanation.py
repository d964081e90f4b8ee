"""What was drafted, in sentences for the person who started it: the choices, and what about the files decided them."""

from collections.abc import Iterator

from site_worker.tabular.findings import Findings
from site_worker.tabular.roles import Seen, values_of
from site_worker.tabular.schema import Label, text_of


def sentences(found: Findings) -> Iterator[str]:
    """Files, label, roles, then what is particular about single columns."""
    yield from _about_files(found)
    yield from _about_label(found)
    for role, title in (("number", "Numbers"), ("category", "Categories"), ("ignore", "Ignored")):
        named = [(name, why) for name, (column, why) in found.roles.items() if column.role == role]
        for name, why in named if role == "ignore" else []:
            yield f"{title}: {name}, {why}."
        if named and role != "ignore":
            yield f"{title}: {', '.join(name for name, _ in named)}."
    for seen in found.columns:
        yield from _about_column(seen, found)


def _about_files(found: Findings) -> Iterator[str]:
    rows = {site: max((one.rows for one in file.columns.values()), default=0) for site, file in found.files.items()}
    yield f"Sites: {', '.join(f'{site} ({count} rows)' for site, count in rows.items())}."
    if not next(iter(found.files.values())).header:
        yield "The files have no header, so the columns are named by their place; write better names into files.names."
    if found.delimiter == "auto":
        named = [f"{one.path.name} {one.delimiter!r}" for one in found.files.values() if one.delimiter]
        yield f"The files have different delimiters, so each is found by its first row: {', '.join(named)}."
    if any("" in one.names for one in found.files.values()):
        yield "A column without a name, such as an exported index, is not read."
    lower: dict[str, list[str]] = {}
    for seen in found.columns:
        lower.setdefault(seen.name.lower(), []).append(seen.name)
    for names in lower.values():
        if len(names) > 1:
            yield f"The files write one name differently: {', '.join(names)}; rename the columns if they are the same."


def _about_label(found: Findings) -> Iterator[str]:
    others = ", ".join(one.column for one in found.others)
    if found.label is None and not found.others:
        yield "No label was found: no column has two values in all files; write [label] yourself."
    elif found.label is None:
        yield f"Choose the label: it could be {others}; write one into [label] and remove its table under columns."
    else:
        label = found.label
        name = f"{label.time} until {label.event}" if label.time else label.column
        positive = f"over {label.above:g}" if label.above is not None else " or ".join(map(repr, label.positive))
        yield f"The label is {name}, {found.why}; positive is {positive}."
        if others:
            yield f"Named as outcomes too: {others}; ignore those that are known only after the label."


def _about_column(seen: Seen, found: Findings) -> Iterator[str]:
    column, label = found.roles.get(seen.name, (None, ""))[0], found.label or Label()
    if column is not None and column.role == "ignore":
        return
    signs = [text for text in seen.profile.missing if text]
    codes = dict.fromkeys([*signs, *map(text_of, label.missing if column is None else column.missing)])
    if codes:
        yield f"{seen.name}: {', '.join(map(repr, codes))} is taken to mean missing."
    if seen.lacking:
        yield f"{seen.name} is lacking at {', '.join(seen.lacking)}, so it is optional."
    if column is not None and column.role == "category":
        missing = list(map(text_of, column.missing))
        rows, by_site = values_of(seen.profile, missing), [values_of(one, missing) for one in seen.sites.values()]
        told = [
            f"{text} ({rows[text]} rows at {sum(text in one for one in by_site)} of {len(found.files)} sites)"
            for text in map(text_of, column.categories)
        ]
        yield f"{seen.name} has the categories {', '.join(told)}."
