"""The algebra of masks.

A mask tree is parallel to the params: a leaf is ``None`` (nothing pruned here) or a bool tensor of the parameter's
shape, ``True`` = keep. ``None`` means all-True: the identity of `intersect` and the absorber of `union`. It has no
shape, so what must write one out takes the params too. Nothing here writes in place, and neither should you: a result
may hold the very tensors that were passed in.

Every function raises ValueError or TypeError, naming the path, where trees, shapes, dtypes or devices do not match.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcprune import selectors, trees
from funcprune.selectors import Where
from funcprune.trees import Masks, Params, Spec

__all__ = [
    "Count",
    "check",
    "contiguous",
    "counts",
    "difference",
    "equal",
    "full",
    "intersect",
    "invert",
    "is_subset",
    "sparsity",
    "stack",
    "union",
    "unstack",
]


class Count(NamedTuple):
    """How many entries of a leaf are kept, of how many."""

    kept: int
    total: int


def aligned(params: Params, /, *masks: Masks) -> tuple[Spec, list[Tensor], list[list[Tensor | None]]]:
    """The structure and leaves of the params, and the leaves of each mask tree in that order, all checked."""
    leaves, spec = trees.params(params)
    columns = []
    for tree in masks:
        column = trees.align(spec, tree, "masks")
        for index, (leaf, mask) in enumerate(zip(leaves, column, strict=True)):
            if mask is not None and not _fits(mask, leaf):
                _refuse(spec, index, mask, leaf)
        columns.append(column)
    return spec, leaves, columns


def check(params: Params, masks: Masks, /) -> None:
    """Nothing, where ``masks`` are masks for ``params``.

    Raises:
        TypeError: a leaf of the params is no tensor, or a mask is not bool.
        ValueError: the structures differ, or a mask has not its parameter's shape or device.

    >>> fp.masks.check({"w": torch.ones(2)}, {"w": torch.tensor([True, False])})
    """
    aligned(params, masks)


def full(params: Params, masks: Masks | None = None, /) -> Masks:
    """All-True masks; with ``masks``, those masks with every None written out as an all-True tensor.

    >>> fp.masks.full({"w": torch.zeros(2)})
    {'w': tensor([True, True])}
    """
    leaves, spec = trees.params(params)
    found = [None] * len(leaves) if masks is None else aligned(params, masks)[2][0]
    return spec.unflatten([written(leaf, mask) for leaf, mask in zip(leaves, found, strict=True)])


def intersect(*masks: Masks) -> Masks:
    """Kept where every one keeps it: all of the pruning of all of the masks. At least one tree.

    >>> fp.masks.intersect({"w": torch.tensor([True, True, False])}, {"w": torch.tensor([True, False, True])})
    {'w': tensor([ True, False, False])}
    >>> fp.masks.intersect({"w": None}, {"w": torch.tensor([False])})
    {'w': tensor([False])}
    """
    return _fold(lambda a, b: b if a is None else a if b is None else a & b, masks, "intersect")


def union(*masks: Masks) -> Masks:
    """Kept where any one keeps it. At least one tree.

    >>> fp.masks.union({"w": torch.tensor([True, False])}, {"w": torch.tensor([False, False])})
    {'w': tensor([ True, False])}
    >>> fp.masks.union({"w": None}, {"w": torch.tensor([False])})
    {'w': None}
    """
    return _fold(lambda a, b: None if a is None or b is None else a | b, masks, "union")


def difference(params: Params, a: Masks, b: Masks, /) -> Masks:
    """Kept where ``a`` keeps and ``b`` prunes; every leaf is written out.

    >>> fp.masks.difference({"w": torch.zeros(2)}, {"w": None}, {"w": torch.tensor([True, False])})
    {'w': tensor([False,  True])}
    """
    spec, leaves, (left, right) = aligned(params, a, b)
    rows = zip(leaves, left, right, strict=True)
    return spec.unflatten([written(leaf, x) & ~written(leaf, y) for leaf, x, y in rows])


def invert(params: Params, masks: Masks, /) -> Masks:
    """Kept where ``masks`` prune; every leaf is written out.

    >>> fp.masks.invert({"w": torch.zeros(2)}, {"w": torch.tensor([True, False])})
    {'w': tensor([False,  True])}
    """
    spec, leaves, (found,) = aligned(params, masks)
    return spec.unflatten([~written(leaf, mask) for leaf, mask in zip(leaves, found, strict=True)])


def is_subset(a: Masks, b: Masks, /) -> bool:
    """Whether everything ``a`` keeps, ``b`` keeps too: ``a`` prunes at least what ``b`` prunes.

    >>> fp.masks.is_subset({"w": torch.tensor([True, False])}, {"w": None})
    True
    """
    pairs = _pairs(a, b)
    return all(y is None or bool((y if x is None else ~x | y).all()) for x, y in pairs)


def equal(a: Masks, b: Masks, /) -> bool:
    """Whether both keep the same entries; None equals all-True.

    >>> fp.masks.equal({"w": torch.tensor([True, True])}, {"w": None})
    True
    """
    pairs = _pairs(a, b)
    return all(torch.equal(written(y, x), written(x, y)) for x, y in pairs if not (x is None and y is None))


def counts(params: Params, masks: Masks, /) -> dict[str, Count]:
    """How many entries of each leaf are kept, of how many, by path in natural order. Python integers.

    >>> fp.masks.counts({"w": torch.zeros(2), "b": torch.zeros(3)}, {"w": torch.tensor([True, False]), "b": None})
    {'b': Count(kept=3, total=3), 'w': Count(kept=1, total=2)}
    """
    spec, leaves, (found,) = aligned(params, masks)
    rows = [
        Count(leaf.numel() if mask is None else int(torch.count_nonzero(mask)), leaf.numel())
        for leaf, mask in zip(leaves, found, strict=True)
    ]
    return dict(sorted(zip(trees.spec_paths(spec), rows, strict=True), key=lambda item: trees.natural(item[0])))


def sparsity(params: Params, masks: Masks, /, *, where: Where | None = None) -> float:
    """The pruned fraction of all entries of the params, or of the leaves that ``where`` selects; 0.0 of nothing.

    >>> fp.masks.sparsity({"w": torch.zeros(4)}, {"w": torch.tensor([True, False, True, True])})
    0.25
    """
    rows = counts(params, masks)
    if where is not None:
        chosen = selectors.resolve(where, trees.named(params))
        rows = {path: row for path, row in rows.items() if path in chosen}
    total = sum(row.total for row in rows.values())
    return (total - sum(row.kept for row in rows.values())) / total if total else 0.0


def stack(masks: Iterable[Masks], /) -> Masks:
    """K mask trees as one, each tensor leaf with a new leading dimension of size K, for `torch.func.vmap`.

    A leaf that is None in every tree stays None, in some it is written out.

    >>> fp.masks.stack([{"w": None, "b": None}, {"w": torch.tensor([False]), "b": None}])
    {'w': tensor([[ True],
            [False]]), 'b': None}
    """
    spec, columns = _columns(list(masks), "stack")

    def stacked(*leaves: Tensor | None) -> Tensor | None:
        like = next((leaf for leaf in leaves if leaf is not None), None)
        return None if like is None else torch.stack([written(like, leaf) for leaf in leaves])

    return spec.unflatten([stacked(*row) for row in zip(*columns, strict=True)])


def unstack(masks: Masks, /) -> list[Masks]:
    """The K mask trees of a stacked one; ValueError where no leaf is a tensor, which leaves K unknown.

    >>> fp.masks.unstack({"w": torch.tensor([[True], [False]])})
    [{'w': tensor([True])}, {'w': tensor([False])}]
    """
    spec, (leaves,) = _columns([masks], "unstack")
    sizes = {
        path: len(leaf) if leaf.ndim else 0
        for path, leaf in zip(trees.spec_paths(spec), leaves, strict=True)
        if leaf is not None
    }
    if len(set(sizes.values())) != 1:
        raise ValueError(f"unstack: expected tensors with one common leading size, found {sizes or 'no tensor at all'}")
    count = next(iter(sizes.values()))
    return [spec.unflatten([None if leaf is None else leaf[k] for leaf in leaves]) for k in range(count)]


def contiguous(masks: Masks, /) -> Masks:
    """The same masks as plain contiguous tensors; None stays None.

    A fresh structured mask is an expanded view of one bool a unit. Plain tensors keep a compiled function from being
    compiled again when such a mask is exchanged for another.

    >>> fp.masks.contiguous({"w": torch.tensor([[True], [False]]).expand(2, 2)})["w"].is_contiguous()
    True
    """
    spec, (leaves,) = _columns([masks], "contiguous")
    # a clone, since contiguous() keeps odd strides of dimensions of size 0 and 1, and compiled functions look at them
    plain = torch.contiguous_format
    return spec.unflatten([None if leaf is None else leaf.clone(memory_format=plain) for leaf in leaves])


def written(like: Any, mask: Tensor | None) -> Tensor:
    """The mask, or an all-True one in the shape of ``like``."""
    return torch.ones(like.shape, dtype=torch.bool, device=like.device) if mask is None else mask


def _fold(function: Callable[[Any, Any], Any], masks: Sequence[Masks], name: str) -> Masks:
    spec, columns = _columns(masks, name)
    return spec.unflatten([reduce(function, row) for row in zip(*columns, strict=True)])


def _pairs(a: Masks, b: Masks) -> list[tuple[Any, Any]]:
    _, (left, right) = _columns([a, b], "masks")
    return list(zip(left, right, strict=True))


def _columns(masks: Sequence[Masks], name: str) -> tuple[Spec, list[list[Any]]]:
    """The structure of the first tree and the leaves of each, checked against each other."""
    if not masks:
        raise ValueError(f"{name}: found no mask tree, expected at least one")
    _, spec = trees.flatten(masks[0])
    columns = [trees.align(spec, tree, "masks") for tree in masks]
    for index, row in enumerate(zip(*columns, strict=True)):
        written_out = [leaf for leaf in row if leaf is not None]
        for mask in written_out:
            if not _fits(mask, written_out[0]):
                _refuse(spec, index, mask, written_out[0])
    return spec, columns


def _fits(mask: Tensor, like: Tensor) -> bool:
    return mask.dtype == torch.bool and mask.shape == like.shape and mask.device == like.device


def _refuse(spec: Spec, index: int, mask: Tensor, like: Tensor) -> None:
    where, shape = f"masks at {trees.spec_paths(spec)[index]!r}", like.shape
    if mask.dtype != torch.bool:
        raise TypeError(f"{where}: found dtype {mask.dtype}, expected torch.bool: use mask.bool() or mask != 0")
    if mask.shape != shape:
        stacked = mask.shape[1:] == shape
        hint = ": for stacked masks use torch.func.vmap with in_dims=fp.in_dims(masks)" if stacked else ""
        raise ValueError(f"{where}: found shape {tuple(mask.shape)}, expected {tuple(shape)}{hint}")
    raise ValueError(f"{where}: found device {mask.device}, expected {like.device}: move the mask there")
