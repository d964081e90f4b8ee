"""Tensors by name: copies of them, and the way into safetensors and back, one tensor after the other."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from broker.errors import StorageError
from broker.tensorfile import Buffer, Entry, serialised

Tensors = Mapping[str, Tensor]
NAMES: Final = {
    torch.complex64: "C64", torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def copies(tensors: Tensors) -> dict[str, Tensor]:
    """Copies on the processor, sharing memory with nothing."""
    return {name: one.detach().to("cpu", copy=True).contiguous() for name, one in tensors.items()}


@torch.no_grad()
def fill(live: Tensor, values: NDArray[np.float32]) -> None:
    """Overwrite a tensor with an array of its shape, which may be read-only, or a file mapped into memory."""
    if live.device.type == "cpu" and live.dtype == torch.float32:
        np.copyto(live.detach().numpy(), values)
    else:
        live.copy_(torch.from_numpy(np.array(values)))


def entries(tensors: Tensors) -> Iterator[Entry]:
    """To write `tensors` with broker.tensorfile; one is copied when it is its turn, and only if it must be.

    StorageError if safetensors knows no such numbers.
    """
    for name, one in tensors.items():
        if one.dtype not in NAMES:
            raise StorageError(f"Tensor {name!r} is {one.dtype}, which no safetensors file can hold.")
        yield Entry(name, NAMES[one.dtype], tuple(one.shape), partial(_pieces, one))


def packed(tensors: Tensors) -> Iterator[Buffer]:
    """Tensors as safetensors, in pieces; none if there are no tensors."""
    return serialised(entries(tensors)) if tensors else iter(())


def unpacked(data: bytes) -> dict[str, Tensor]:
    """The tensors that `packed` was given; StorageError if the bytes are damaged."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data) if data else {}
    except SafetensorError as error:
        raise StorageError(f"The tensors that stay at this site are damaged in its outbox: {error}.") from error
    return tensors


def bytes_of(one: Tensor) -> memoryview:
    """A tensor's bytes; a view of them, if it lies on the processor without gaps."""
    return one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _pieces(one: Tensor) -> Iterator[Buffer]:
    yield bytes_of(one)
