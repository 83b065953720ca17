"""Laws of masked parameters. The subject is an implementation of ``apply``, ``masked``, ``bake`` and ``project_``."""

from typing import Any

import torch
from torch import Tensor

from funcprune import masks as algebra
from funcprune import trees
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same, untouched


@law("masking", "Applying masks a second time changes nothing.")
def apply_is_idempotent(masking: Any, case: Case) -> None:
    """``apply(apply(p, m), m) = apply(p, m)``."""
    params = case.params()
    masks = case.masks(params)
    once = masking.apply(params, masks)
    same(masking.apply(once, masks), once, "apply(apply(params, masks), masks)")


@law("masking", "Masks that prune nothing change nothing; a leaf whose mask is None is the same object.")
def apply_of_nothing(masking: Any, case: Case) -> None:
    """``apply(p, full) = p``."""
    params = case.params()
    same(masking.apply(params, algebra.full(params)), params, "apply(params, full)")
    masks = case.masks(params)
    rows = zip(*(trees.flatten(tree)[0] for tree in (params, masks, masking.apply(params, masks))), strict=True)
    ensure(all(out is leaf for leaf, mask, out in rows if mask is None), "a leaf without a mask was copied")


@law("masking", "Applying m, then n, is applying their intersection.")
def apply_composes(masking: Any, case: Case) -> None:
    """``apply(apply(p, m), n) = apply(p, m & n)``."""
    params = case.params()
    m, n = case.masks(params, "m"), case.masks(params, "n")
    found = masking.apply(masking.apply(params, m), n)
    same(found, masking.apply(params, algebra.intersect(m, n)), "apply(apply(params, m), n)")


@law("masking", "Finite entries become zero where pruned and stay what they are where kept.")
def apply_prunes(masking: Any, case: Case) -> None:
    """A product with the mask."""
    params = case.params()
    masks = case.masks(params)
    rows = zip(*(trees.flatten(tree)[0] for tree in (params, masks, masking.apply(params, masks))), strict=True)
    for leaf, mask, out in rows:
        keep = algebra.written(leaf, mask)
        ensure((out == torch.where(keep, leaf, 0.0))[keep | leaf.isfinite()].all(), f"found {out} of {leaf}")


@law("masking", "apply keeps structure, shapes, dtypes, devices, and the strides of dense leaves.")
def apply_preserves(masking: Any, case: Case) -> None:
    """Only values change."""
    params = case.params()
    masks = case.masks(params)
    out = masking.apply(params, masks)
    ensure(type(out) is type(params), f"found {type(out).__name__}, expected {type(params).__name__}")
    _, spec = trees.flatten(params)
    for path, leaf, new in zip(
        trees.paths(params), trees.flatten(params)[0], trees.align(spec, out, "out"), strict=True
    ):
        found, expected = [(t.shape, t.dtype, t.device, t.requires_grad) for t in (new, leaf)]
        ensure(found == expected, f"{path!r}: found {found}, expected {expected}")
        if _dense(leaf):
            strides, own = [
                [stride for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1] for t in (new, leaf)
            ]
            ensure(strides == own, f"{path!r}: found strides {strides}, expected {own}, of dimensions above 1")


@law(
    "masking",
    "Baked params are exactly +0.0 where pruned, whatever was there, the same bits elsewhere, and new memory.",
)
def bake_is_exact(masking: Any, case: Case) -> None:
    """Baking selects."""
    params = case.params()
    masks = case.masks(params)
    baked = masking.bake(params, masks)
    rows = zip(*(trees.flatten(tree)[0] for tree in (params, masks, baked)), strict=True)
    for leaf, mask, out in rows:
        expected = torch.where(algebra.written(leaf, mask), leaf, 0.0)
        same({"leaf": out}, {"leaf": expected}, "baked")
        ensure(torch.equal(torch.signbit(out), torch.signbit(expected)), f"found a zero of the wrong sign in {out}")
        shared = leaf.numel() and out.untyped_storage().data_ptr() == leaf.untyped_storage().data_ptr()
        ensure(not shared, "baked params share memory with the params")


@law("masking", "project_ writes into the params what bake returns, and returns the same objects.")
def project_is_bake(masking: Any, case: Case) -> None:
    """project_ is bake, in place."""
    params = case.draw(strategies.params(layouts=strategies.DENSE), "params")
    masks = case.masks(params)
    baked, leaves = masking.bake(params, masks), trees.flatten(params)[0]
    out = masking.project_(params, masks)
    ensure(all(a is b for a, b in zip(trees.flatten(out)[0], leaves, strict=True)), "project_ returned new tensors")
    same(out, baked, "project_")
    signs = zip(leaves, trees.flatten(baked)[0], strict=True)
    ensure(all(torch.equal(a.signbit(), b.signbit()) for a, b in signs), "project_ wrote -0.0")


@law("masking", "Gradients are zero where pruned, and elsewhere those of the dense function at the masked point.")
def gradients_are_masked(masking: Any, case: Case) -> None:
    """``grad(f . apply)(p) = m * grad(f)(apply(p, m))``."""
    params = case.draw(strategies.params(finite=True, dtypes=(torch.float32, torch.float64)), "params")
    masks = case.masks(params)
    found = torch.func.grad(masking.masked(polynomial))(params, masks)
    dense = torch.func.grad(polynomial)(masking.apply(params, masks))
    rows = zip(*(trees.flatten(tree)[0] for tree in (params, masks, found, dense)), strict=True)
    for leaf, mask, grad, expected in rows:
        keep = algebra.written(leaf, mask)
        ensure((grad == 0)[~keep].all(), f"the gradient is not zero where pruned: {grad}")
        ensure((grad == expected)[keep].all(), f"found gradient {grad}, expected {expected} where kept")


@law("masking", "apply and bake write to nothing that they are given.")
def masking_is_pure(masking: Any, case: Case) -> None:
    """Inputs are as before."""
    params = case.params()
    masks = case.masks(params)
    with untouched(params, masks):
        masking.apply(params, masks), masking.bake(params, masks)


def polynomial(params: Any, scale: float = 1.0) -> Tensor:
    """A smooth function of every entry, with another slope at each."""
    total = torch.zeros((), dtype=torch.float64)
    for leaf in trees.flatten(params)[0]:
        slope = torch.arange(1, leaf.numel() + 1, dtype=leaf.dtype).reshape(leaf.shape)
        total = total + (slope * (leaf * leaf + leaf) * scale).sum().double()
    return total


def _dense(leaf: Tensor) -> bool:
    """Whether the strides are a permutation of the contiguous ones."""
    pairs = sorted((stride, size) for stride, size in zip(leaf.stride(), leaf.shape, strict=True) if size != 1)
    expected = 1
    for stride, size in pairs:
        if stride != expected:
            return False
        expected *= size
    return leaf.numel() > 0
