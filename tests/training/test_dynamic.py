"""Dynamic sparsity: counts stay, drop and grow as in the papers, grown weights and moments start at zero."""

from typing import Any

import pytest
import torch

import funcprune as fp
from funcprune import schedules
from funcprune.training import DynamicState, dynamic, rigl, sparse_evolution, static

from .helpers import normal, same_bits, zeros_stay

WEIGHTS = {"w": normal((20, 30), 0), "v": normal((8, 30), 1), "b": normal((20,), 2)}
DENSE = {name: normal(tuple(value.shape), 5 + i) for i, (name, value) in enumerate(WEIGHTS.items())}
RANDOM = fp.random_unstructured(0.8, seed=0)


def rewired(method: Any, params: Any, grads: Any, opt_state: Any = None) -> tuple[Any, Any, Any, Any]:
    """The masks before; and state, params and optimizer state after one update that is due."""
    before = method.init(params)
    due = before._replace(step=method.every)
    params = fp.bake(params, before.masks)
    return before.masks, *method.update(due, params, opt_state, grads=grads)


def test_rigl_moves_what_its_formula_says() -> None:
    method = rigl(RANDOM, drop=0.3, every=100, end=1000)
    state = method.init(WEIGHTS)
    masks = fp.masks.full(WEIGHTS, state.masks)
    for step in range(100, 1000, 100):
        due = DynamicState(step, state.masks)
        new = method.update(due, WEIGHTS, None, grads=DENSE)[0]
        for name, kept in (("w", 120), ("v", 48)):
            grown = int((new.masks[name] & ~masks[name]).sum())
            fraction = 0.15 * (1 + torch.cos(torch.tensor(torch.pi * step / 1000, dtype=torch.float64)))
            assert grown == round(float(fraction) * kept)
        assert new.masks["b"] is None


def test_updates_are_due_every_so_often_until_the_end() -> None:
    for method in (rigl(RANDOM, every=3, end=10), sparse_evolution(RANDOM, every=3, end=10, seed=0)):
        assert [step for step in range(20) if method.due(DynamicState(step, {}))] == [3, 6, 9]
    assert not any(static(RANDOM).due(DynamicState(step, {})) for step in range(20))


def test_an_update_that_is_not_due_hands_everything_through() -> None:
    method = rigl(RANDOM, every=5, end=100)
    state, momentum = method.init(WEIGHTS), {"w": 1}
    new, params, opt_state = method.update(state, WEIGHTS, momentum)  # needs no grads
    assert new == (1, state.masks)
    assert params is WEIGHTS
    assert opt_state is momentum


def test_entries_dropped_by_an_update_do_not_grow_in_it() -> None:
    # Their gradients are the largest of all, and yet others grow; at the next update they may.
    params = {"w": torch.tensor([4.0, 3.0, 0.0, 0.0])}
    method = dynamic(
        fp.custom_from_mask({"w": torch.tensor([True, True, False, False])}),
        drop=schedules.constant(0.5),
        every=1,
        end=9,
    )
    state = method.init(params)._replace(step=1)
    state, params, _ = method.update(state, params, None, grads={"w": torch.tensor([9.0, 9.0, 1.0, 2.0])})
    assert state.masks["w"].tolist() == [True, False, False, True]
    state, params, _ = method.update(state, params, None, grads={"w": torch.tensor([9.0, 9.0, 1.0, 2.0])})
    assert state.masks["w"].tolist() == [True, True, False, False]


def test_a_leaf_without_pruned_entries_stays_dense() -> None:
    masks = {"w": torch.ones(20, 30, dtype=torch.bool), "v": torch.rand(8, 30) < 0.9, "b": None}
    method = rigl(fp.custom_from_mask(masks), drop=1.0, every=1, end=10)
    before, state, params, _ = rewired(method, WEIGHTS, DENSE)
    assert torch.equal(params["w"], WEIGHTS["w"])
    assert params["b"] is not WEIGHTS["b"]  # baked by `rewired`, not by the update
    assert state.masks["w"].all()
    assert fp.masks.counts(WEIGHTS, before) == fp.masks.counts(WEIGHTS, state.masks)
    assert not torch.equal(state.masks["v"], before["v"])


def test_random_growth_depends_on_seed_and_step_alone() -> None:
    def grown(seed: int, step: int, **rest: Any) -> Any:
        method = sparse_evolution(RANDOM, every=1, end=100, seed=seed)
        params = WEIGHTS | rest
        return method.update(method.init(params)._replace(step=step), params, None)[0].masks["w"]

    torch.manual_seed(3)
    global_state = torch.get_rng_state()
    assert torch.equal(grown(0, 1), grown(0, 1, other=torch.ones(3, 3)))
    assert not torch.equal(grown(0, 1), grown(1, 1))
    assert not torch.equal(grown(0, 1), grown(0, 2))
    assert not torch.equal(grown(0, 2), grown(1, 1))
    assert torch.equal(torch.get_rng_state(), global_state)


def test_structured_units_drop_and_grow_whole() -> None:
    pruner = fp.random_structured(0.5, dim=0, seed=0, where="w")
    for method in (
        rigl(pruner, every=1, end=10, structure=fp.Slices(0)),
        sparse_evolution(pruner, every=1, end=10, seed=0, structure=fp.Slices(0)),
    ):
        before, state, new, _ = rewired(method, WEIGHTS, DENSE)
        rows = state.masks["w"]
        assert torch.equal(rows.all(1), rows.any(1))
        assert int(rows.all(1).sum()) == 10
        assert not torch.equal(rows, before["w"])
        zeros_stay(new, fp.masks.intersect(before, state.masks))


def test_blocks_drop_and_grow_whole() -> None:
    blocks = fp.Blocks((2, 3))
    pruner = fp.Pruner(fp.criteria.random(0), 0.5, structure=blocks, where="w")
    before, state, new, _ = rewired(rigl(pruner, every=1, end=10, structure=blocks), WEIGHTS, DENSE)
    units = state.masks["w"].view(10, 2, 10, 3).transpose(1, 2).flatten(2)
    assert torch.equal(units.all(2), units.any(2))
    assert int(units.all(2).sum()) == 50
    assert not torch.equal(state.masks["w"], before["w"])
    zeros_stay(new, fp.masks.intersect(before, state.masks))


def test_another_criterion_decides_what_drops() -> None:
    def inverse(params: Any, masks: Any) -> Any:
        return {name: -value.abs() for name, value in params.items()}

    params = {"w": torch.tensor([3.0, 2.0, 0.0])}
    pruner = fp.custom_from_mask({"w": torch.tensor([True, True, False])})
    method = dynamic(pruner, drop=schedules.constant(0.5), every=1, end=9, seed=0, criterion=inverse)
    state, _, _ = method.update(method.init(params)._replace(step=1), params, None)
    assert state.masks["w"].tolist() == [False, True, True]


def test_any_allocation_starts_it_and_is_kept() -> None:
    allocation = fp.chain(
        fp.random_unstructured(0.9, seed=0, where="w"), fp.random_unstructured(0.5, seed=0, where="v")
    )
    before, state, _, _ = rewired(rigl(allocation, every=1, end=10), WEIGHTS, DENSE)
    assert [fp.masks.counts(WEIGHTS, state.masks)[name].kept for name in "wv"] == [60, 120]
    assert fp.masks.counts(WEIGHTS, before) == fp.masks.counts(WEIGHTS, state.masks)


def test_gradients_through_the_mask_are_refused() -> None:
    method = rigl(RANDOM, every=1, end=10)
    state = method.init(WEIGHTS)._replace(step=1)

    def loss(params: Any) -> Any:
        return sum((value**3).sum() for value in params.values())

    through = torch.func.grad(fp.masked(loss))(WEIGHTS, state.masks)
    with pytest.raises(ValueError, match=r"zero at every pruned entry.*grad\(loss\)\(fp.apply\(params, state.masks\)"):
        method.update(state, WEIGHTS, None, grads=through)


BAD = [
    (lambda: rigl(RANDOM, every=0, end=10), ValueError, "every=0"),
    (lambda: rigl(RANDOM, drop=1.5, end=10), ValueError, r"start=1\.5"),
    (lambda: rigl(RANDOM, end=10.0), TypeError, "end=10"),
    (lambda: sparse_evolution(RANDOM, every=1, end=10, seed=True), TypeError, "seed=True"),
    (lambda: dynamic(None, drop=schedules.constant(0.1), every=1, end=1), TypeError, "pruner=None"),
    (lambda: dynamic(RANDOM, drop=0.3, every=1, end=1), TypeError, r"drop=0\.3"),
    (lambda: dynamic(RANDOM, drop=schedules.constant(0.1), every=1, end=1, criterion=3), TypeError, "criterion=3"),
    (lambda: rigl(RANDOM, end=1, structure=fp.Coupled({"w": 0, "b": 0})), TypeError, "units of one leaf"),
    (lambda: rigl(RANDOM, end=1, structure=fp.NM(keep=2, of=4)), ValueError, "sets the counts itself"),
    (lambda: rewired(dynamic(RANDOM, drop=lambda step: 1.5, every=1, end=9), WEIGHTS, DENSE), ValueError, "at step 1"),
    (lambda: rewired(dynamic(RANDOM, drop=lambda step: -0.1, every=1, end=9), WEIGHTS, DENSE), ValueError, "at step 1"),
    (lambda: rewired(rigl(RANDOM, every=1, end=10), WEIGHTS, None), ValueError, "grads=None"),
    (lambda: rewired(rigl(RANDOM, every=1, end=10), WEIGHTS, {"w": DENSE["w"]}), ValueError, "grads"),
    (
        lambda: rewired(rigl(RANDOM, every=1, end=10), WEIGHTS, DENSE | {"w": None}),
        ValueError,
        "grads at 'w': found None",
    ),
    (
        lambda: rewired(rigl(RANDOM, every=1, end=10), WEIGHTS, DENSE | {"v": torch.ones(8)}),
        ValueError,
        r"grads at 'v': found shape \(8,\)",
    ),
    (
        lambda: rewired(rigl(RANDOM, every=1, end=10), WEIGHTS, DENSE | {"v": torch.full((8, 30), torch.nan)}),
        ValueError,
        "scores at 'v': found NaN",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input_is_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_nothing_passed_in_is_changed() -> None:
    kept = [{name: value.clone() for name, value in tree.items()} for tree in (WEIGHTS, DENSE)]
    momentum = {name: value.clone() for name, value in DENSE.items()}
    method = rigl(RANDOM, every=1, end=10)
    state = method.init(WEIGHTS)._replace(step=1)
    masks = fp.masks.contiguous(state.masks)
    method.update(state, WEIGHTS, momentum, grads=DENSE)
    same_bits([WEIGHTS, DENSE, momentum, state.masks], [*kept, DENSE, masks])


def test_leaves_that_require_gradients_still_do() -> None:
    params = {name: value.clone().requires_grad_() for name, value in WEIGHTS.items()}
    method = rigl(RANDOM, every=1, end=10)
    _, new, _ = method.update(method.init(params)._replace(step=1), params, None, grads=DENSE)
    assert all(value.is_leaf and value.requires_grad for value in new.values())


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_in_place_and_functional_updates_agree(make: Any) -> None:
    params = {name: torch.nn.Parameter(value.clone()) for name, value in WEIGHTS.items()}
    optimizer = make(params.values(), lr=0.1, **({"momentum": 0.9} if make is torch.optim.SGD else {}))
    for name, value in params.items():
        value.grad = DENSE[name].clone()
    optimizer.step()
    method = rigl(RANDOM, every=1, end=10)
    state = method.init(params)._replace(step=1)
    keys = [key for key, value in optimizer.state[params["w"]].items() if key != "step"]
    moments = {key: {name: optimizer.state[p][key].clone() for name, p in params.items()} for key in keys}
    pure, new, new_moments = method.update(state, params, moments, grads=DENSE)
    identities = {name: id(value) for name, value in params.items()}
    in_place = method.update_(state, params, optimizer, grads=DENSE)
    same_bits(pure.masks, in_place.masks)
    same_bits({name: value.detach() for name, value in params.items()}, {n: v.detach() for n, v in new.items()})
    same_bits({key: {name: optimizer.state[p][key] for name, p in params.items()} for key in keys}, new_moments)
    assert {name: id(value) for name, value in params.items()} == identities


def test_a_failed_update_in_place_changes_nothing() -> None:
    params = {name: torch.nn.Parameter(value.clone()) for name, value in WEIGHTS.items()}
    method = rigl(RANDOM, every=1, end=10)
    stranger = torch.optim.SGD([params["w"]], lr=0.1)
    with pytest.raises(ValueError, match="SGD does not train"):
        method.update_(method.init(params)._replace(step=1), params, stranger, grads=DENSE)
    same_bits({name: value.detach() for name, value in params.items()}, WEIGHTS)
