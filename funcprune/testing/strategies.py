"""Hypothesis strategies for everything that is pruned and everything that prunes; all of them are here.

They draw small cases of odd kinds rather than large ones: ties, infinities and both zeros; no dimension, no entry, one
entry; transposed, strided, expanded and channels_last memory; four dtypes; flat and nested containers. Everything
shrinks towards a float32 tensor of one entry.

======================  ====================================================================
`tensors`               one tensor of a shape, any memory layout
`params`                parameter trees
`masks`                 masks for params; `unit_masks` for a bare shape
`scores`                scores for params, ties and infinities among them
`fractions`             fractions for ``amount=`` and ``sparsity=``
`selectors`             what ``where=`` takes, matching something in params
`pruners`               every pruner of the library, by family, and chains of them
`structures`            units
`modules`               small modules with inputs
======================  ====================================================================
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import funcprune as fp
from funcprune import trees
from funcprune.trees import Masks, Params, Scores

__all__ = [
    "DENSE",
    "FAMILIES",
    "LAYOUTS",
    "Example",
    "Layer",
    "fractions",
    "masks",
    "modules",
    "nest",
    "params",
    "pruners",
    "scores",
    "selectors",
    "structures",
    "tensors",
    "unit_masks",
]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPES = ((1,), (2,), (3,), (1, 1), (1, 2), (2, 2), (3, 2), (), (0,), (2, 0), (0, 2), (2, 1, 2), (2, 3, 2, 2), (5, 7))
MATRICES = tuple(shape for shape in SHAPES if len(shape) >= 2)
NAMES = ("weight", "bias", "layers.0.weight", "layers.1.weight", "layers.10.weight", "head.bias", "head.weight")
VALUES = (1.0, 2.0, 0.5, 3.0, -1.0, -2.0, -0.5, 0.0, -0.0)  # exact in every dtype, and few enough to tie
LAYOUTS = ("contiguous", "transposed", "strided", "channels_last", "expanded")
DENSE = LAYOUTS[:-1]
INFINITIES = (float("inf"), -float("inf"))


class Layer(NamedTuple):
    """A container of parameters that is no dict."""

    weight: Any
    bias: Any


class Example(NamedTuple):
    """A module and the inputs of one call."""

    model: nn.Module
    inputs: tuple[Tensor, ...]


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    finite: bool = False,
    distinct: bool = False,
    layouts: Sequence[str] = LAYOUTS,
) -> Tensor:
    """A tensor of ``shape``.

    Args:
        draw: what Hypothesis hands over.
        shape: its shape.
        dtype: a floating-point dtype.
        finite: without infinities. NaN is never drawn.
        distinct: no two entries of the same magnitude, and none is zero.
        layouts: the memory layouts to choose from, of `LAYOUTS`; a tensor expanded by stride 0 cannot be written to.
    """
    size = torch.Size(shape).numel()
    if distinct:
        order = draw(st.permutations(range(1, size + 1)))
        signs = draw(st.integers(0, 2**size - 1))
        values = [float(-n if signs >> i & 1 else n) for i, n in enumerate(order)]
    else:
        # one draw of bytes is an order of magnitude faster than a draw an entry, and shrinks as well
        digits = list(draw(st.binary(min_size=size, max_size=size)))
        palette = VALUES if finite else VALUES + INFINITIES
        spread = draw(st.sampled_from((False, False, True)))
        values = [
            (digit + 1) / (-8 if digit % 2 else 8) if spread else palette[digit % len(palette)] for digit in digits
        ]
    tensor = torch.tensor(values, dtype=dtype).reshape(tuple(shape))
    possible = [layout for layout in layouts if _can_be(layout, shape) and not (distinct and layout == "expanded")]
    return _laid_out(tensor, draw(st.sampled_from(possible)))


def _can_be(layout: str, shape: Sequence[int]) -> bool:
    if layout == "expanded":
        return len(shape) >= 1 and shape[0] > 1
    return len(shape) >= {"contiguous": 0, "strided": 1, "transposed": 2, "channels_last": 4}[layout]


def _laid_out(tensor: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "expanded":
        return tensor[:1].expand(tensor.shape)
    return tensor


@st.composite
def params(
    draw: st.DrawFn,
    *,
    shapes: Sequence[Sequence[int]] = SHAPES,
    dtypes: Sequence[torch.dtype] = DTYPES,
    names: Sequence[str] = NAMES,
    max_leaves: int = 3,
    matrix: bool = False,
    nested: bool = True,
    finite: bool = False,
    distinct: bool = False,
    layouts: Sequence[str] = LAYOUTS,
) -> Params:
    """A parameter tree of up to ``max_leaves`` leaves, flat or nested.

    Args:
        draw: what Hypothesis hands over.
        shapes: the shapes to choose from, simplest first.
        dtypes: the dtypes to choose from, simplest first.
        names: the dotted paths to choose from.
        max_leaves: at most so many leaves.
        matrix: at least one leaf has two dimensions or more: what pruners select by default.
        nested: dicts in dicts, lists, tuples and NamedTuples occur too.
        finite: see `tensors`.
        distinct: see `tensors`.
        layouts: see `tensors`.
    """
    chosen = draw(st.lists(st.sampled_from(list(names)), unique=True, min_size=int(matrix), max_size=max_leaves))
    flat = {}
    for index, name in enumerate(chosen):
        allowed = [shape for shape in shapes if len(shape) >= 2] if matrix and index == 0 else shapes
        shape, dtype = draw(st.sampled_from(list(allowed))), draw(st.sampled_from(list(dtypes)))
        flat[name] = draw(tensors(shape, dtype=dtype, finite=finite, distinct=distinct, layouts=layouts))
    return nest(flat) if nested and draw(st.booleans()) else flat


def nest(flat: dict[str, Any], /) -> Any:
    """The tree in which every dot of a path is a step down: lists for ``0, 1, ...``, `Layer` for weight and bias.

    >>> fp.testing.strategies.nest({"layers.0.weight": 1, "layers.1.weight": 2, "bias": 3})
    {'layers': [{'weight': 1}, {'weight': 2}], 'bias': 3}
    """
    groups: dict[str, Any] = {}
    for path, leaf in flat.items():
        head, dot, rest = path.partition(".")
        if dot:
            groups.setdefault(head, {})[rest] = leaf
        else:
            groups[head] = leaf
    tree = {key: nest(value) if isinstance(value, dict) else value for key, value in groups.items()}
    if tree and set(tree) == {str(index) for index in range(len(tree))}:
        return [tree[str(index)] for index in range(len(tree))]
    return Layer(**tree) if set(tree) == {"weight", "bias"} else tree


@st.composite
def unit_masks(draw: st.DrawFn, shape: Sequence[int]) -> Tensor:
    """A bool tensor of ``shape``: any entries, or whole slices as an expanded view."""
    drawn = (shape[0], *[1] * (len(shape) - 1)) if len(shape) >= 2 and draw(st.booleans()) else tuple(shape)
    size = torch.Size(drawn).numel()
    kept = [byte % 2 == 0 for byte in draw(st.binary(min_size=size, max_size=size))]
    return torch.tensor(kept, dtype=torch.bool).reshape(drawn).expand(tuple(shape))


@st.composite
def masks(draw: st.DrawFn, params: Params) -> Masks:
    """Masks for ``params``; None, everything and nothing kept, and whole slices occur."""
    leaves, spec = trees.params(params)
    drawn = [draw(st.none() | unit_masks(tuple(leaf.shape))) for leaf in leaves]
    return spec.unflatten(drawn)


@st.composite
def scores(draw: st.DrawFn, params: Params, *, distinct: bool = False) -> Scores:
    """Scores for ``params``, of any floating-point dtype, one for all leaves."""
    leaves, spec = trees.params(params)
    dtype = draw(st.sampled_from(DTYPES))
    return spec.unflatten([draw(tensors(leaf.shape, dtype=dtype, distinct=distinct)) for leaf in leaves])


def fractions() -> st.SearchStrategy[float]:
    """Fractions from 0.0 to 1.0, both ends and the halves that rounding is about among them."""
    return st.sampled_from((0.5, 0.0, 1.0, 0.25, 0.1)) | st.floats(0, 1, width=32)


@st.composite
def selectors(draw: st.DrawFn, params: Params) -> fp.selectors.Where:
    """A ``where=`` that selects at least one leaf of a tree that has leaves."""
    named = trees.named(params)
    path = draw(st.sampled_from(list(named)))
    leaf = named[path]
    suffix = "*" + path[len(path) // 2 :]
    simple = st.sampled_from(
        [
            fp.glob(path),
            fp.glob(suffix),
            fp.regex(".*" + path[-1]),
            fp.ndim(min=leaf.ndim),
            fp.ndim(max=leaf.ndim),
        ]
    )
    found = draw(simple)
    for _ in range(draw(st.integers(0, 2))):
        found = found | draw(simple | simple.map(lambda selector: ~selector))
    choices: list[fp.selectors.Where] = [found, path, [path, found], lambda where, _: where == path]
    return draw(st.sampled_from(choices))


FAMILIES = ("magnitude", "structured", "random", "random_structured", "identity", "chain")


@st.composite
def pruners(draw: st.DrawFn, family: str | None = None) -> Any:
    """A pruner of the library that accepts every tree of ``params(matrix=True)``; ``family`` is one of `FAMILIES`."""
    family = draw(st.sampled_from(FAMILIES)) if family is None else family
    if family == "identity":
        return fp.identity()
    if family == "chain":
        parts = draw(st.lists(pruners("magnitude") | pruners("structured") | pruners("random"), max_size=3))
        return fp.chain(*parts)
    fraction = draw(fractions())
    budget: dict[str, Any] = draw(st.sampled_from([{"amount": fraction}, {"sparsity": fraction}]))
    scope: fp.allocation.Scope = draw(st.sampled_from(("leaf", "global")))
    if family == "magnitude" and draw(st.booleans()):
        return fp.l1_unstructured(**budget, scope=fp.within(draw(st.sampled_from([0, -1]))))
    if family == "structured":
        n, dim = draw(st.sampled_from([1, 2, float("inf"), -float("inf"), 0])), draw(st.sampled_from([0, 1, -1]))
        return fp.ln_structured(**budget, n=n, dim=dim, scope=scope)
    seed = draw(st.integers(0, 99))
    if family == "random_structured":
        return fp.random_structured(**budget, dim=draw(st.sampled_from([0, 1])), seed=seed, scope=scope)
    where = draw(st.sampled_from([fp.selectors.default, fp.glob("*")]))  # entries have no need of two dimensions
    if family == "magnitude":
        return fp.l1_unstructured(**budget, scope=scope, where=where)
    if family == "random":
        return fp.random_unstructured(**budget, seed=seed, scope=scope, where=where)
    raise ValueError(f"family={family!r}: expected one of {', '.join(FAMILIES)}")


def structures() -> st.SearchStrategy[fp.structures.Structure]:
    """Units of leaves of two dimensions or more."""
    return st.just(fp.Elements()) | st.builds(fp.Slices, st.sampled_from([0, 1, -1]), st.sampled_from([1, 2, 0]))


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """Two layers of one weight."""
        return torch.as_tensor(self.second(self.first(x).relu()))


def _shared() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def _attention() -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True)


_MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(3, 2), (2, 3)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU()), (1, 1, 3, 3)),
    "norm": (lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), (2, 3)),
    "tied": (_Tied, (2, 3)),
    "shared": (_shared, (2, 3)),
    "lstm": (lambda: nn.LSTM(2, 3, batch_first=True), (1, 2, 2)),
    "attention": (_attention, (1, 2, 4)),
}


@st.composite
def modules(draw: st.DrawFn, *kinds: str) -> Example:
    """A small module in evaluation mode, and inputs; ``kinds`` among linear, conv, norm, tied, shared, lstm, attention.

    Its values come from a drawn seed; torch's global generator stays where it was.
    """
    make, shape = _MODULES[draw(st.sampled_from(kinds or tuple(_MODULES)))]
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 9)))
        return Example(make().eval(), (torch.randn(shape),))
