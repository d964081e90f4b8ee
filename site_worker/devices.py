"""Where a site computes, and how precisely: the processor or one CUDA device; float32, or mixed precision by autocast.

Weights, optimizer state and what travels are float32 whatever the precision; only the forward pass is narrower.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch

from broker.errors import UsageError

_NARROW: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Place:
    """A device and a precision: float32, bf16 or fp16."""

    device: torch.device
    precision: str = "float32"

    def autocast(self) -> AbstractContextManager[Any]:
        """For the forward pass and the loss."""
        if self.precision not in _NARROW:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_NARROW[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients of fp16 from vanishing (Micikevicius et al. 2018, section 3.2); else does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def moved(self, value: Any) -> Any:
        """`value` with every tensor of its lists, tuples and dicts on this device; so with whatever has `to`."""
        if hasattr(value, "to"):
            return value.to(self.device)
        if isinstance(value, list | tuple):
            moved = [self.moved(one) for one in value]
            return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
        if isinstance(value, dict):
            return {name: self.moved(one) for name, one in value.items()}
        return value


PROCESSOR: Final = Place(torch.device("cpu"))


def place_named(device: str, precision: str) -> Place:
    """The place of a site's settings; UsageError if this machine does not have it. `auto` is CUDA if there is any."""
    place = Place(_device(device), precision)
    if precision == "fp16" and place.device.type != "cuda":
        raise UsageError("Precision fp16 needs a CUDA device; set precision to bf16 or float32 in site.toml.")
    if precision == "bf16" and place.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError(f"Device {place.device} has no bf16; set precision to fp16 or float32 in site.toml.")
    return place


def _device(name: str) -> torch.device:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    number = int(name.partition(":")[2] or 0)
    if number >= there:
        raise UsageError(
            f"Device {name!r} is not there: torch finds {there} CUDA devices; set device to auto or cpu in site.toml, "
            "or look at its driver with nvidia-smi."
        )
    return torch.device("cuda", number)
