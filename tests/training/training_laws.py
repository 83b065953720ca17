"""The laws of training with masks, as plain functions that raise AssertionError where one is broken.

Each takes what it judges as an argument, so that a wrong implementation can be judged, too.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

import funcprune as fp
from funcprune import trees


def ramp_is_exact_at_its_ends(
    schedule: Callable[[int], float], start: float, stop: float, begin: int, end: int
) -> None:
    """A schedule holds its start up to and including begin, and its stop exactly from end on."""
    assert [schedule(step) for step in (begin - 1000, begin - 1, begin)] == [start] * 3
    assert [schedule(step) for step in (end, end + 1, end + 1000)] == [stop] * 3


def ramp_stays_between_and_never_turns(
    schedule: Callable[[int], float], start: float, stop: float, begin: int, end: int
) -> None:
    """A schedule lies between its start and its stop, and only moves towards its stop."""
    values = [schedule(step) for step in range(begin - 1, end + 2)]
    assert all(min(start, stop) <= value <= max(start, stop) for value in values)
    away = [abs(stop - value) for value in values]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(away))


def masks_only_shrink(masks: Sequence[Any]) -> None:
    """Masks of successive steps are subsets, each of the one before."""
    for before, after in itertools.pairwise(masks):
        assert fp.masks.is_subset(after, before)


def the_last_update_fires(method: Any, params: Any, expected: Any) -> None:
    """After the update of step end, the masks are those of the pruner at the schedule's value there."""
    state = method.init(params)
    for _ in range(method.end + 1):
        state = method.update(state, params)
    assert fp.masks.equal(state.masks, expected)


def counts_stay(params: Any, before: Any, after: Any) -> None:
    """Every leaf keeps as many entries after a drop and growth as before."""
    assert fp.masks.counts(params, before) == fp.masks.counts(params, after)


def grown_were_pruned_and_start_at_zero(before: Any, after: Any, new: Any) -> None:
    """Grown entries are none of the kept or dropped ones; they, and all pruned entries, are exactly +0.0."""
    for path, tensor in trees.named(new).items():
        old, now = _leaf(before, path), _leaf(after, path)
        if old is not None:
            assert torch.equal(torch.count_nonzero(now & ~old), torch.count_nonzero(old & ~now))
            zeros = tensor[~(old & now)]
            assert not zeros.any()
            assert not torch.signbit(zeros).any()


def kept_are_untouched(before: Any, after: Any, old: Any, new: Any) -> None:
    """Entries kept by both masks have the same bits before and after."""
    for path, tensor in trees.named(new).items():
        a, b = _leaf(before, path), _leaf(after, path)
        both = torch.ones_like(tensor, dtype=torch.bool) if a is None else a & b
        assert torch.equal(tensor[both], trees.named(old)[path][both])


def the_smallest_drop(params: Any, before: Any, after: Any) -> None:
    """No dropped weight is larger in magnitude than a kept one of its leaf."""
    _ordered(params, before, after, lambda old, now: (old & ~now, old & now))


def the_largest_gradients_grow(grads: Any, before: Any, after: Any) -> None:
    """No gradient at a grown entry is smaller in magnitude than at one of its leaf that was and stays pruned."""
    _ordered(grads, before, after, lambda old, now: (~old & ~now, ~old & now))


def zeros_stay(params: Any, masks: Any) -> None:
    """Pruned entries are exactly zero."""
    for path, tensor in trees.named(params).items():
        mask = _leaf(masks, path)
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


def _ordered(values: Any, before: Any, after: Any, split: Callable[[Any, Any], tuple[Any, Any]]) -> None:
    for path, tensor in trees.named(values).items():
        old, now = _leaf(before, path), _leaf(after, path)
        if old is not None:
            low, high = split(old, now)
            if low.any() and high.any():
                assert tensor[low].abs().max() <= tensor[high].abs().min()


def _leaf(masks: Any, path: str) -> Any:
    leaves, spec = trees.flatten(masks)
    return dict(zip(trees.spec_paths(spec), leaves, strict=True))[path]
