"""Saved, loaded and continued, every method ends with the same bits as if it had never stopped."""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

import funcprune as fp
from funcprune import schedules
from funcprune.training import dynamic, gradual, project_state, rigl, sparse_evolution, sr_ste, static

from .helpers import normal, same_bits

PARAMS = {"layers": [{"w": normal((12, 10), 0)}, {"w": normal((4, 12), 1)}], "bias": normal((4,), 2)}
X, Y = normal((64, 10), 3), normal((64, 4), 4)
RANDOM = fp.random_unstructured(0.7, seed=0)
CUBIC = schedules.polynomial(0.0, 0.9, begin=5, end=40)
GRADUAL = gradual(fp.l1_unstructured(0.9, scope="global"), CUBIC, begin=5, end=40, every=6)


class Carry(NamedTuple):
    state: Any
    params: Any
    momentum: Any


def loss(params: Any, x: Any, y: Any) -> Any:
    hidden = (x @ params["layers"][0]["w"].T).tanh()
    return (hidden @ params["layers"][1]["w"].T + params["bias"] - y).square().mean()


def mapped(function: Callable[..., Any], *trees: Any) -> Any:
    first = [list(map(lambda *leaves: {"w": function(*leaves)}, *([x["w"] for x in t["layers"]] for t in trees)))]
    return {"layers": first[0], "bias": function(*(t["bias"] for t in trees))}


def sgd(carry: Carry, grads: Any) -> tuple[Any, Any]:
    momentum = mapped(lambda m, g, w: 0.9 * m + g + 0.01 * w, carry.momentum, grads, carry.params)
    return mapped(lambda w, m: w - 0.05 * m, carry.params, momentum), momentum


def gradual_step(carry: Carry, x: Any, y: Any) -> Carry:
    masks = carry.state.masks
    params, momentum = sgd(carry, torch.func.grad(fp.masked(loss))(carry.params, masks, x, y))
    state = GRADUAL.update(carry.state, params)
    return Carry(state, fp.bake(params, state.masks), project_state(momentum, params, state.masks))


def dynamic_step(method: Any) -> Callable[..., Carry]:
    def step(carry: Carry, x: Any, y: Any) -> Carry:
        dense = torch.func.grad(loss)(fp.apply(carry.params, carry.state.masks), x, y)
        params, momentum = sgd(carry, fp.apply(dense, carry.state.masks))
        return Carry(*method.update(carry.state, params, momentum, grads=dense))

    return step


def sr_ste_step(carry: Carry, x: Any, y: Any) -> Carry:
    masks = fp.l1_unstructured(sparsity=0.5)(carry.params)
    grads = torch.func.grad(lambda p: loss(sr_ste(p, masks, decay=0.01), x, y))(carry.params)
    return Carry(carry.state + 1, *sgd(carry, grads))


METHODS: dict[str, tuple[Any, Callable[..., Carry]]] = {
    "gradual": (GRADUAL.init, gradual_step),
    "sr_ste": (lambda params: 0, sr_ste_step),
} | {
    name: (method.init, dynamic_step(method))
    for name, method in {
        "static": static(RANDOM),
        "set": sparse_evolution(RANDOM, every=7, end=40, seed=5),
        "rigl": rigl(RANDOM, every=7, end=40),
        "structured": dynamic(
            fp.random_structured(0.5, dim=0, seed=0),
            drop=schedules.constant(0.3),
            every=7,
            end=40,
            structure=fp.Slices(0),
        ),
    }.items()
}


def run(name: str, carry: Carry, first: int, last: int) -> Carry:
    for number in range(first, last):
        rows = torch.randperm(64, generator=torch.Generator().manual_seed(number))[:16]
        carry = METHODS[name][1](carry, X[rows], Y[rows])
    return carry


def saved_and_loaded(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("stop", [7, 8, 30])
@pytest.mark.parametrize("name", METHODS)
def test_resumed_equals_uninterrupted_bit_for_bit(name: str, stop: int) -> None:
    start = Carry(METHODS[name][0](PARAMS), PARAMS, mapped(torch.zeros_like, PARAMS))
    whole = run(name, start, 0, 50)
    half = run(name, start, 0, stop)
    again = Carry(*saved_and_loaded(tuple(half)))
    assert type(again.state) is type(half.state)
    same_bits(again, half)
    same_bits(run(name, again, stop, 50), whole)


def test_the_law_catches_a_bit() -> None:
    value = {"w": torch.tensor([0.0, 1.0]), "step": 3}
    same_bits(value, saved_and_loaded(value))
    for wrong in ({"w": torch.tensor([-0.0, 1.0]), "step": 3}, {"w": value["w"], "step": 4}):
        with pytest.raises(AssertionError):
            same_bits(value, wrong)


def test_rigl_moved_and_stayed_as_sparse() -> None:
    init, _ = METHODS["rigl"]
    start = Carry(init(PARAMS), PARAMS, mapped(torch.zeros_like, PARAMS))
    end = run("rigl", start, 0, 50)
    assert fp.masks.counts(PARAMS, start.state.masks) == fp.masks.counts(PARAMS, end.state.masks)
    assert not fp.masks.equal(start.state.masks, end.state.masks)
    same_bits(fp.bake(end.params, end.state.masks), mapped(lambda w: w + 0.0, end.params))


def test_methods_are_picklable_values() -> None:
    for method in (GRADUAL, rigl(RANDOM, end=9), fp.training.lottery(RANDOM, rounds=1, steps=2)):
        assert pickle.loads(pickle.dumps(method)) == method


def test_importing_is_light() -> None:
    heavy = {"hypothesis", "matplotlib", "mlxtend", "pytest", "tqdm"}
    # torch itself imports tqdm where it is installed
    before = "import torch, sys; had = {*sys.modules}"
    code = f"{before}; import funcprune.training; assert not {heavy} & ({{*sys.modules}} - had)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
