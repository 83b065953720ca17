"""Masks as bytes in compiled graphs.

The C++ that ``torch.compile`` generates for a CPU reads bools one by one, and a uint8 view of them no faster, but uint8
tensors sixteen entries at a time. An operator that the compiler does not look into makes the one from the other.
"""

import torch
from torch import Tensor

_NAME = "funcprune::as_bytes"


def as_bytes(mask: Tensor, /) -> Tensor:
    """A bool tensor on the CPU as a uint8 tensor of ones and zeros: a copy, with the same strides where it is dense.

    An expanded mask becomes one of full size. A graph that is differentiated keeps the copy for its backward pass.
    """
    found: Tensor = torch.ops.funcprune.as_bytes(mask)
    return found


def _as_bytes(mask: Tensor) -> Tensor:
    return mask.view(torch.uint8).clone()


def _as_bytes_traced(mask: Tensor) -> Tensor:
    return torch.empty_like(mask, dtype=torch.uint8)


def _as_bytes_vmapped(_: object, in_dims: tuple[int], mask: Tensor) -> tuple[Tensor, int]:
    return as_bytes(mask), in_dims[0]


if not hasattr(torch.ops.funcprune, "as_bytes"):  # it outlives this module, which may be loaded again
    torch.library.define(_NAME, "(Tensor mask) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(_NAME, "CPU", _as_bytes)
    torch.library.impl(_NAME, "Meta", _as_bytes_traced)
    torch.library.register_vmap(_NAME, _as_bytes_vmapped)
