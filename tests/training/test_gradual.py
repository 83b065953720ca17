"""Gradual pruning: masks shrink, the last update fires, steps without one cost nothing."""

import io
from typing import Any

import pytest
import torch

import funcprune as fp
from funcprune import schedules
from funcprune.training import gradual

from .helpers import normal, pruners

PARAMS = {"w": normal((10, 10), 0), "b": normal((10,), 1)}


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize(("begin", "end", "every"), [(5, 15, 10), (5, 15, 4), (0, 0, 7), (3, 5, 1)])
def test_any_structure_and_scope_ends_on_target(which: int, begin: int, end: int, every: int) -> None:
    # Updates at `step % every == 0` alone would end at 0.936 of the target for every 10, steps 5 to 15.
    pruner = pruners(0.8)[which]
    method = gradual(pruner, schedules.linear(0.0, 0.8, begin=-1, end=end), begin=begin, end=end, every=every)
    state = method.init(PARAMS)
    for _ in range(end + 1):
        state = method.update(state, PARAMS)
    assert fp.masks.equal(state.masks, pruner(PARAMS))


def test_counts_follow_the_cubic_schedule_exactly() -> None:
    method = gradual(
        fp.l1_unstructured(sparsity=0.9, where="w"), schedules.polynomial(0.0, 0.9, end=100), begin=0, end=100, every=25
    )
    state, kept = method.init(PARAMS), {}
    for step in range(102):
        state = method.update(state, PARAMS)
        kept[step] = fp.masks.counts(PARAMS, state.masks)["w"].kept
    # 0.5203, 0.7875 and 0.8859 of 100 are 52, 79 and 89 pruned, rounded
    assert [kept[step] for step in (0, 24, 25, 49, 50, 74, 75, 99, 100, 101)] == [
        100,
        100,
        48,
        48,
        21,
        21,
        11,
        11,
        10,
        10,
    ]


def test_steps_without_an_update_touch_nothing() -> None:
    method = gradual(fp.l1_unstructured(sparsity=0.9), schedules.constant(0.9), begin=10, end=30, every=10)
    state = method.init(PARAMS)
    due = []
    for step in range(40):
        before = state
        if method.due(state):
            due.append(step)
            state = method.update(state, PARAMS)
        else:
            state = method.update(state, None)  # params are not even looked at
            assert state.masks is before.masks
        assert state.step == step + 1
    assert due == [10, 20, 30]


def test_masks_to_start_from_are_kept() -> None:
    start = {"w": torch.arange(100).view(10, 10) % 2 == 0, "b": None}
    method = gradual(fp.l1_unstructured(0.1), schedules.constant(0.75), begin=0, end=0, every=1)
    state = method.update(method.init(PARAMS, start), PARAMS)
    assert fp.masks.is_subset(state.masks, start)
    assert fp.masks.counts(PARAMS, state.masks)["w"].kept == 25


def test_a_chain_follows_the_schedule_too() -> None:
    chain = fp.chain(fp.l1_unstructured(0.1, where="w"), fp.l1_unstructured(0.1, where="b"), fp.identity())
    method = gradual(chain, schedules.constant(0.5), begin=0, end=0, every=1)
    state = method.update(method.init(PARAMS), PARAMS)
    assert fp.masks.counts(PARAMS, state.masks) == {"b": (5, 10), "w": (50, 100)}


def test_a_criterion_that_accumulates_sees_every_update() -> None:
    params = {"w": torch.tensor([[1.0, 1.0, 1.0]])}
    pushed = [{"w": torch.tensor([[-5.0, 1.0, 0.0]])}, {"w": torch.tensor([[3.0, 1.0, -1.0]])}]
    pruner = fp.Pruner(fp.criteria.movement(params), 0.5)
    method = gradual(pruner, schedules.constant(2 / 3), begin=1, end=1, every=1)
    state = method.init(params)
    for grads in pushed:
        state = method.update(state, params, grads)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    assert torch.equal(state.criterion["total"]["w"], torch.tensor([[2.0, -2.0, 1.0]]))
    assert state.criterion["steps"] == 2
    assert state.masks["w"].tolist() == [[True, False, False]]
    with pytest.raises(ValueError, match="grads=None"):
        method.update(method.init(params), params)


BAD = [
    ({"begin": 3, "end": 2, "every": 1}, ValueError, "begin <= end"),
    ({"begin": -1, "end": 2, "every": 1}, ValueError, "begin=-1"),
    ({"begin": 0, "end": 2, "every": 0}, ValueError, "every=0"),
    ({"begin": 0, "end": 2.0, "every": 1}, TypeError, "end=2.0"),
    ({"begin": 0, "end": True, "every": 1}, TypeError, "end=True"),
]


@pytest.mark.parametrize(("steps", "error", "words"), BAD)
def test_bad_steps_are_refused(steps: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        gradual(fp.l1_unstructured(0.5), schedules.constant(0.5), **steps)


def test_a_pruner_without_a_target_is_refused() -> None:
    for pruner in (lambda params, masks=None: masks, fp.chain(fp.identity(), lambda params, masks=None: masks)):
        with pytest.raises(TypeError, match=r"at\(sparsity\)"):
            gradual(pruner, schedules.constant(0.5), begin=0, end=1, every=1)
    with pytest.raises(TypeError, match=r"schedule=0\.5"):
        gradual(fp.l1_unstructured(0.5), 0.5, begin=0, end=1, every=1)


def test_pruning_in_rounds_follows_the_schedule_too() -> None:
    rounds = fp.iterate(fp.l1_unstructured(0.1, where="w"), rounds=3)
    method = gradual(rounds, schedules.constant(0.5), begin=0, end=0, every=1)
    state = method.update(method.init(PARAMS), PARAMS)
    assert fp.masks.counts(PARAMS, state.masks)["w"].kept == 50


def test_custom_masks_have_no_target_and_stay_in_force() -> None:
    pinned = {"w": torch.eye(10).bool(), "b": None}
    method = gradual(
        fp.chain(fp.custom_from_mask(pinned), fp.l1_unstructured(0.5)), schedules.constant(0.5), begin=0, end=0, every=1
    )
    assert fp.masks.is_subset(method.update(method.init(PARAMS), PARAMS).masks, pinned)


def test_repr_is_the_call() -> None:
    method = gradual(fp.l1_unstructured(0.5), schedules.constant(0.5), begin=0, end=4, every=2)
    assert repr(method) == "gradual(Pruner(magnitude(), 0.5), constant(0.5), begin=0, end=4, every=2)"


def test_a_criterion_that_accumulates_is_refused_where_it_would_not_be_shown_the_gradients() -> None:
    inner = fp.Pruner(fp.criteria.movement(PARAMS), sparsity=0.5)
    for pruner in (fp.chain(fp.identity(), inner), fp.iterate(inner), fp.chain(fp.chain(inner))):
        with pytest.raises(ValueError, match="accumulates"):
            gradual(pruner, schedules.constant(0.5), begin=0, end=0, every=1)
