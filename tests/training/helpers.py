"""What the tests of training share."""

from typing import Any

import torch
from torch import Tensor

import funcprune as fp
from funcprune import trees


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pruners(sparsity: float) -> list[fp.Pruner]:
    """Pruners with every structure and scope there is."""
    return [
        fp.l1_unstructured(sparsity=sparsity),
        fp.l1_unstructured(sparsity=sparsity, scope="global"),
        fp.l1_unstructured(sparsity=sparsity, scope=fp.within(0), where="w"),
        fp.random_unstructured(sparsity=sparsity, seed=3),
        fp.ln_structured(sparsity=sparsity, n=2, dim=0),
        fp.random_structured(sparsity=sparsity, dim=1, seed=3, scope="global"),
    ]


def zeros_stay(params: Any, masks: Any) -> None:
    """Pruned entries are exactly zero."""
    leaves, spec = trees.params(params)
    for tensor, mask in zip(leaves, trees.align(spec, masks, "masks"), strict=True):
        assert mask is None or not tensor[~mask].any()


def same_bits(a: Any, b: Any) -> None:
    """Two trees of tensors and numbers are the same, bit for bit."""
    (left, spec), (right, other) = trees.flatten(a), trees.flatten(b)
    assert spec == other
    for x, y in zip(left, right, strict=True):
        if isinstance(x, torch.Tensor):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)
            assert torch.equal(torch.signbit(x), torch.signbit(y))
        else:
            assert x == y
