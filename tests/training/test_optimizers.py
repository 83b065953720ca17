"""Optimizer state: pruned weights stay exactly zero, whatever optimizer trains them."""

from typing import Any, NamedTuple

import pytest
import torch

import funcprune as fp
from funcprune.training import project_optimizer_, project_state

from .helpers import normal, same_bits, zeros_stay

O = torch.optim  # noqa: E741
OPTIMIZERS = {
    "SGD": lambda p: O.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "Adam": lambda p: O.Adam(p, lr=0.01, weight_decay=0.01, amsgrad=True),
    "AdamW": lambda p: O.AdamW(p, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda p: O.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.01, centered=True),
    "Adagrad": lambda p: O.Adagrad(p, lr=0.05, weight_decay=0.01, initial_accumulator_value=0.1),
    "Adadelta": lambda p: O.Adadelta(p, weight_decay=0.01),
    "Adamax": lambda p: O.Adamax(p, lr=0.01, weight_decay=0.01),
    "NAdam": lambda p: O.NAdam(p, lr=0.01, weight_decay=0.01, decoupled_weight_decay=True),
    "RAdam": lambda p: O.RAdam(p, lr=0.01, weight_decay=0.01),
    "Rprop": lambda p: O.Rprop(p, lr=0.01),
    "ASGD": lambda p: O.ASGD(p, lr=0.05, weight_decay=0.01),
}
FACTORED = {  # the update of one entry depends on others
    "Muon": lambda p: O.Muon(p, lr=0.01, weight_decay=0.1),
    "Adafactor": lambda p: O.Adafactor(p, lr=0.05),
}
X, Y = normal((64, 12), 0), normal((64, 4), 1)


def regression() -> dict[str, Any]:
    return {"0.weight": torch.nn.Parameter(normal((8, 12), 2)), "2.weight": torch.nn.Parameter(normal((4, 8), 3))}


def step(params: dict[str, Any], optimizer: Any, masks: Any, number: int) -> None:
    rows = slice(8 * (number % 8), 8 * (number % 8) + 8)
    first, second = fp.apply(params, masks).values()
    loss = ((X[rows] @ first.T).tanh() @ second.T - Y[rows]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def parallel_state(optimizer: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}": value
        for name, parameter in params.items()
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_projected_once_pruned_weights_stay_zero(name: str) -> None:
    params = regression()
    optimizer = OPTIMIZERS[name](params.values())
    for number in range(30):
        step(params, optimizer, dict.fromkeys(params), number)
    assert len(parallel_state(optimizer, params)) >= 2
    masks = fp.l1_unstructured(0.6)(params)
    fp.project_(params, masks)
    project_optimizer_(optimizer, params, masks)
    before = {key: value.detach().clone() for key, value in params.items()}
    for number in range(200):
        step(params, optimizer, masks, number)
        zeros_stay(params, masks)
    same_bits(fp.bake(params, masks), {key: value.detach() + 0.0 for key, value in params.items()})
    assert all((params[key] != before[key])[masks[key]].any() for key in params)  # the rest trained


def test_thousands_of_steps_with_momentum_and_weight_decay() -> None:
    for name in ("SGD", "AdamW"):
        params = regression()
        optimizer = OPTIMIZERS[name](params.values())
        for number in range(20):
            step(params, optimizer, dict.fromkeys(params), number)
        masks = fp.l1_unstructured(0.6, scope="global")(params)
        fp.project_(params, masks)
        project_optimizer_(optimizer, params, masks)
        for number in range(2000):
            step(params, optimizer, masks, number)
        zeros_stay(params, masks)
        zeros_stay(fp.bake(params, masks), masks)
        for value in parallel_state(optimizer, params).values():
            assert value.isfinite().all()


def test_without_it_momentum_revives_pruned_weights() -> None:
    # The story: prune, then one step of momentum, and the zeros are gone.
    params = regression()
    optimizer = OPTIMIZERS["SGD"](params.values())
    for number in range(5):
        step(params, optimizer, dict.fromkeys(params), number)
    masks = fp.l1_unstructured(0.6)(params)
    fp.project_(params, masks)
    step(params, optimizer, masks, 5)
    with pytest.raises(AssertionError):
        zeros_stay(params, masks)


@pytest.mark.parametrize("name", [*OPTIMIZERS, *FACTORED])
def test_dense_gradients_need_both_after_every_step(name: str) -> None:
    params = regression()
    optimizer = (OPTIMIZERS | FACTORED)[name](params.values())
    masks = fp.l1_unstructured(0.6)(params)
    fp.project_(params, masks)
    for number in range(20):
        step(params, optimizer, dict.fromkeys(params), number)
        fp.project_(params, masks)
        project_optimizer_(optimizer, params, masks)
        zeros_stay(params, masks)
        for key, value in parallel_state(optimizer, params).items():
            assert not value[~masks[key.rpartition(".")[0]]].any()


def test_step_counts_and_scalars_are_left_alone() -> None:
    scalar = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = O.Adam([scalar])
    scalar.square().backward()
    optimizer.step()
    project_optimizer_(optimizer, {"s": scalar}, {"s": torch.tensor(False)})
    assert optimizer.state[scalar]["step"] == 1
    assert optimizer.state[scalar]["exp_avg"] == 0


def test_parameters_of_another_model_are_refused_and_frozen_ones_are_not() -> None:
    params = regression()
    masks = fp.l1_unstructured(0.6)(params)
    copies = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    optimizer = O.SGD(params.values(), lr=0.1)
    with pytest.raises(ValueError, match=r"params at '0.weight': found a tensor that SGD does not train"):
        project_optimizer_(optimizer, copies, masks)
    params["0.weight"].requires_grad_(False)
    assert project_optimizer_(O.SGD([params["2.weight"]], lr=0.1), params, masks).state == {}


def test_masks_that_do_not_fit_are_refused_before_anything_changes() -> None:
    params = regression()
    optimizer = OPTIMIZERS["Adam"](params.values())
    step(params, optimizer, dict.fromkeys(params), 0)
    before = {key: value.clone() for key, value in parallel_state(optimizer, params).items()}
    bad = {"0.weight": torch.zeros(8, 12, dtype=torch.bool), "2.weight": torch.zeros(3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"masks at '2.weight'"):
        project_optimizer_(optimizer, params, bad)
    same_bits(before, parallel_state(optimizer, params))


class AdamState(NamedTuple):
    count: int
    mu: Any
    nu: Any


PARAMS = {"layers": [{"w": torch.ones(2, 2)}, {"w": torch.ones(3)}], "b": torch.ones(2)}
MASKS = {"layers": [{"w": torch.eye(2).bool()}, {"w": torch.tensor([True, False, True])}], "b": None}
ONES = fp.bake(PARAMS, fp.masks.full(PARAMS))
ZEROED = fp.bake(PARAMS, MASKS)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, None),
        ((), ()),
        (3, 3),
        (ONES, ZEROED),
        (AdamState(7, ONES, ONES), AdamState(7, ZEROED, ZEROED)),
        ({"inner": [(ONES,), None], "lr": 0.1}, {"inner": [(ZEROED,), None], "lr": 0.1}),
        ({"scale": torch.ones(2, 2)}, {"scale": torch.ones(2, 2)}),  # of the shape, and of no parameter
        ({**ONES, "b": torch.ones(())}, {**ZEROED, "b": torch.ones(())}),
    ],
)
def test_every_parallel_tree_in_a_pytree_is_projected(state: Any, expected: Any) -> None:
    same_bits(project_state(state, PARAMS, MASKS), expected)


def test_parallel_trees_align_by_key_and_keep_their_type() -> None:
    from collections import OrderedDict

    momentum = OrderedDict([("b", torch.ones(2)), ("a", torch.ones(2))])
    params = {"a": torch.ones(2), "b": torch.ones(2)}
    masks = {"a": torch.tensor([True, False]), "b": torch.tensor([False, True])}
    new = project_state({"momentum": momentum}, params, masks)["momentum"]
    assert list(new) == ["b", "a"]
    assert type(new) is OrderedDict
    same_bits(dict(new), {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 1.0])})
    assert momentum["a"].all()


def test_nan_and_infinity_in_pruned_moments_are_erased() -> None:
    moments, params = {"w": torch.tensor([torch.nan, torch.inf, 1.0])}, {"w": torch.ones(3)}
    masks = {"w": torch.tensor([False, False, True])}
    same_bits(project_state(moments, params, masks), {"w": torch.tensor([0.0, 0.0, 1.0])})
