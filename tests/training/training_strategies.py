"""What the tests of training draw: parameter trees, gradients, schedules."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

import funcprune as fp

SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple)


def normal(shape: tuple[int, ...], seed: int, *, ties: bool = False) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.mul(2).round().div(2) if ties else drawn


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Params of one to three weights and a bias, and gradients like them; with ties or without."""
    ties = draw(st.booleans())
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**20))
    named = {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)} | {"bias": (3,)}
    params = {name: normal(shape, seed + i, ties=ties) for i, (name, shape) in enumerate(named.items())}
    grads = {name: normal(shape, seed + 100 + i, ties=ties) for i, (name, shape) in enumerate(named.items())}
    return params, grads


FRACTIONS = st.floats(0, 1, allow_nan=False)
RAMPS = {
    "linear": fp.schedules.linear,
    "polynomial": fp.schedules.polynomial,
    "exponential": fp.schedules.exponential,
    "cosine": fp.schedules.cosine,
    "one_cycle": fp.schedules.one_cycle,
}


@st.composite
def ramps(draw: st.DrawFn) -> tuple[fp.schedules.Schedule, float, float, int, int]:
    """A schedule, and the start, stop, begin and end it was made with."""
    name = draw(st.sampled_from(sorted(RAMPS)))
    fractions = st.floats(0, 0.999) if name == "exponential" else FRACTIONS
    start, stop = draw(fractions), draw(fractions)
    begin = draw(st.integers(-5, 1000))
    end = begin + draw(st.integers(1, 300))
    options = {"power": draw(st.floats(0.25, 6))} if name == "polynomial" else {}
    return RAMPS[name](start, stop, begin=begin, end=end, **options), start, stop, begin, end


def pruners(sparsity: float) -> list[fp.Pruner]:
    """Pruners with every structure and scope there is."""
    return [
        fp.l1_unstructured(sparsity=sparsity),
        fp.l1_unstructured(sparsity=sparsity, scope="global"),
        fp.l1_unstructured(sparsity=sparsity, scope=fp.within(0), where="layers.0.*"),
        fp.random_unstructured(sparsity=sparsity, seed=3),
        fp.ln_structured(sparsity=sparsity, n=2, dim=0),
        fp.random_structured(sparsity=sparsity, dim=1, seed=3, scope="global"),
    ]


def is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, abs_tol=1e-12)
