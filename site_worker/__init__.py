"""The worker at a hospital: trains when it can, keeps what it computed until a receipt has settled it.

What a task needs can be imported from here, `from site_worker import Split, Task`; it is looked up only then, because
torch comes with it and `status` needs none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.statistics import FeatureStatistics
    from site_worker.metrics import auc, suggested
    from site_worker.tasks.task import Split, Task

__all__ = ["FeatureStatistics", "Split", "Task", "auc", "suggested"]
_HOMES = {
    "FeatureStatistics": "broker.statistics",
    "Split": "site_worker.tasks.task",
    "Task": "site_worker.tasks.task",
    "auc": "site_worker.metrics",
    "suggested": "site_worker.metrics",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
