"""Writing a version of the model where others can use it: a safetensors file and its model card beside it."""

from pathlib import Path

from aggregator.card import read_card
from aggregator.cardtext import to_markdown
from aggregator.journal import Journal
from aggregator.opening import restore
from aggregator.settings import Folder
from broker.errors import UsageError
from broker.files import require_writable, write_file
from broker.weights import Layout, save_model


def export_model(folder: Folder, file: Path, *, version: int | None = None) -> tuple[Layout, int]:
    """Write FILE and its card, of the newest version or an older one; its layout and version. The file's metadata holds
    the card's facts as JSON.
    """
    if file.suffix != ".safetensors":
        raise UsageError(f"{file} must end in .safetensors; its model card gets the same name with .md.")
    require_writable(file)
    if not folder.journal_file.is_file():
        raise UsageError(f"There is no {folder.journal_file}; has this folder been initialised?")
    journal = Journal(folder.journal_file)
    try:
        settings = folder.settings()
        layout, fold = restore(journal, folder, settings.aggregation, at_version=version)
        card = read_card(journal, settings, layout, fold)
    finally:
        journal.close()
    save_model(file, layout, fold.model, metadata=card.metadata())
    write_file(file.with_suffix(".md"), to_markdown(card).encode())
    return layout, fold.version
