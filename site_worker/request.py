"""What a site sends to the coordinator: its request, and version 0 of its model if the task makes one here."""

from functools import partial

from broker.files import write_file
from broker.identity import PrivateKey
from broker.letters import Request
from broker.weights import Layout, save_model
from site_worker.model import initial_weights
from site_worker.settings import Folder
from site_worker.tasks.task import load_task
from site_worker.worker import described


def write_request(folder: Folder, *, with_model: bool = True) -> Request:
    """Write FOLDER/SITE.request.toml and FOLDER/initial.safetensors; UsageError if the task cannot be loaded.

    Without the model the task is not loaded, and the request says nothing of it.
    """
    settings, public = folder.settings(), PrivateKey.load(folder.key_file).public.to_text()
    request = Request(settings.site, public)
    if with_model:
        task = described(partial(load_task, settings.task, settings.options, base=folder.path))
        weights = described(partial(initial_weights, task))
        layout = Layout.of(weights)
        save_model(folder.model_file, layout, layout.flatten(weights), metadata={"task": task.name, "version": "0"})
        request = Request(settings.site, public, task.name, layout.digest.hex(), layout.size)
    write_file(folder.request_file(settings.site), request.to_toml().encode())
    return request
