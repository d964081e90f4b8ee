"""What all files of a folder are together: their columns side by side, the label, and a role for each other column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import UsageError
from site_worker.tabular.profile import FileProfile
from site_worker.tabular.roles import Seen, label_named, label_of, role_of
from site_worker.tabular.schema import Column, Label


@dataclass(frozen=True)
class Findings:
    """What was found in the files and made of it; without a label, `others` are the columns that could be it."""

    files: Mapping[str, FileProfile]
    columns: Sequence[Seen]
    label: Label | None
    why: str
    others: Sequence[Label]
    roles: Mapping[str, tuple[Column, str]]

    @property
    def delimiter(self) -> str:
        """The one of all files that need one declared, "auto" if they have several."""
        used = {one.delimiter for one in self.files.values() if one.delimiter and one.path.suffix.lower() != ".tsv"}
        return "auto" if len(used) > 1 else next(iter(used), ",")


def findings_of(files: Mapping[str, FileProfile], *, wanted: str = "") -> Findings:
    """Of the files by site, the label being the column `wanted` if a person named one.

    UsageError names files that differ in what no declaration covers, and the columns that could be a label.
    """
    _require_agreement(list(files.values()))
    names = dict.fromkeys(name for one in files.values() for name in one.names if name)
    columns = [_seen(name, files) for name in names]
    named = all(one.header for one in files.values())
    label, why, others = label_named(columns, wanted) if wanted else label_of(columns, named=named)
    taken = {label.column, label.time, label.event} if label else set()
    roles = {seen.name: role_of(seen) for seen in columns if seen.name not in taken}
    return Findings(files, columns, label, why, others, roles)


def _seen(name: str, files: Mapping[str, FileProfile]) -> Seen:
    return Seen(
        name,
        sites={site: one.columns[name] for site, one in files.items() if name in one.columns},
        lacking=[site for site, one in files.items() if name not in one.names],
        unreadable=next((one.unreadable[name] for one in files.values() if name in one.unreadable), ""),
    )


def _require_agreement(files: Sequence[FileProfile]) -> None:
    """UsageError for differences that no declaration covers."""
    with_header, without = [one for one in files if one.header], [one for one in files if not one.header]
    if with_header and without:
        raise UsageError(
            f"{without[0].path} seems to have no header, {with_header[0].path} has one; give all files the same header."
        )
    for one in without:
        if len(one.names) != len(without[0].names):
            raise UsageError(
                f"{without[0].path} has {len(without[0].names)} columns, {one.path} has {len(one.names)}, and neither "
                "names them; give the files a header."
            )
    commas = [one for one in files if any(column.commas for column in one.columns.values())]
    points = [one for one in files if one.delimiter and any(column.points for column in one.columns.values())]
    if commas and points:
        raise UsageError(
            f"{commas[0].path} has decimal commas and {points[0].path} decimal points; write one of the two everywhere."
        )
