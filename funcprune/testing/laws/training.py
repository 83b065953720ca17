"""Laws of training with masks. The subject has the methods and helpers of `funcprune.training`."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from funcprune import masking, schedules, trees
from funcprune import masks as algebra
from funcprune.pruners import custom_from_mask, l1_unstructured
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same, untouched
from funcprune.trees import Masks, Params


def _params(case: Case) -> Params:
    return case.draw(strategies.params(matrix=True, finite=True), "params")


def _like(params: Params, case: Case, label: str) -> Params:
    """A tree of random numbers, with ties and without zeros: gradients, moments, other weights."""
    random = torch.Generator().manual_seed(case.draw(st.integers(0, 999), label))
    leaves, spec = trees.params(params)
    drawn = [torch.randint(1, 9, leaf.shape, generator=random) for leaf in leaves]
    signs = [torch.randint(0, 2, leaf.shape, generator=random) * 2 - 1 for leaf in leaves]
    rows = zip(leaves, drawn, signs, strict=True)
    return spec.unflatten([(size * sign).to(leaf.dtype) / 4 for leaf, size, sign in rows])


@law("training", "Gradual pruning never brings anything back, whatever the schedule and the weights do.")
def gradual_masks_only_shrink(training: Any, case: Case) -> None:
    """``m(t+1)`` is a subset of ``m(t)``."""
    params = _params(case)
    values = case.draw(st.lists(strategies.fractions(), min_size=1, max_size=5), "sparsity by step")
    pruner = case.draw(st.sampled_from((l1_unstructured(0.5), l1_unstructured(0.5, scope="global"))), "pruner")
    method = training.gradual(pruner, values.__getitem__, begin=0, end=len(values) - 1, every=1)
    state = method.init(params)
    for step in range(len(values)):
        now = _like(params, case, f"weights at step {step}")
        after = method.update(state, now)
        ensure(algebra.is_subset(after.masks, state.masks), f"step {step} brought entries back: {after.masks}")
        state = after


@law("training", "The last update of gradual pruning fires and reaches the target, whatever every is; none follows.")
def gradual_ends_on_target(training: Any, case: Case) -> None:
    """``m(end) = pruner.at(schedule(end))``."""
    params = _params(case)
    begin, length = case.draw(st.integers(0, 5), "begin"), case.draw(st.integers(0, 15), "end - begin")
    every, stop = case.draw(st.integers(1, 12), "every"), case.draw(strategies.fractions(), "sparsity")
    pruner, end = l1_unstructured(0.5), begin + length
    ramp = schedules.linear(0.0, stop, begin=begin - 1, end=end)
    method = training.gradual(pruner, ramp, begin=begin, end=end, every=every)
    state = method.init(params)
    for step in range(end + 3):
        state = method.update(state, params)
        if step >= end:
            expected = pruner.at(stop)(params)
            ensure(algebra.equal(state.masks, expected), f"found {state.masks} after step {step}, expected {expected}")


class _Update(NamedTuple):
    """An update of dynamic sparsity, from the projected params on."""

    params: Params
    grads: Params
    before: Masks
    after: Masks
    new: Params
    moments: Any
    by_gradient: bool

    def rows(self) -> list[tuple[str, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """For each leaf with a mask: path, old and new mask, old and new value, gradient, new moment."""
        columns = [trees.named(tree) for tree in (self.params, self.new, self.grads, self.moments["mu"])]
        masks = [trees.beside(self.params, tree, "masks") for tree in (self.before, self.after)]
        paths = [path for path in columns[0] if masks[0][path] is not None]
        return [(path, *(m[path] for m in masks), *(column[path] for column in columns)) for path in paths]


def _dynamic(training: Any, case: Case) -> _Update:
    params = _params(case)
    masks = case.masks(params)
    params, grads = masking.bake(_like(params, case, "weights"), masks), _like(params, case, "grads")
    moments = {"count": 7, "mu": _like(params, case, "moments")}
    seed = case.draw(st.none() | st.integers(0, 9), "seed")
    drop = case.draw(strategies.fractions(), "drop")
    method = training.dynamic(custom_from_mask(masks), drop=schedules.constant(drop), every=1, end=9, seed=seed)
    state = method.init(params)._replace(step=1)
    with untouched(params, grads, moments, state.masks):
        after, new, opt_state = method.update(state, params, moments, grads=grads)
    return _Update(params, grads, state.masks, after.masks, new, opt_state, seed is None)


@law("training", "Dynamic sparsity keeps the number of weights of every leaf.")
def dynamic_counts_stay(training: Any, case: Case) -> None:
    """``sum(m(t+1)) = sum(m(t))``, leaf by leaf."""
    found = _dynamic(training, case)
    before, after = (algebra.counts(found.params, masks) for masks in (found.before, found.after))
    ensure(before == after, f"found {after}, expected {before}")


@law("training", "What grows was pruned before, and starts at +0.0 as all that is pruned, weights and moments alike.")
def grown_start_at_zero(training: Any, case: Case) -> None:
    """``w(t+1) = 0`` wherever either mask prunes; the grown and the kept are disjoint."""
    for path, old, now, _, new, _, moment in _dynamic(training, case).rows():
        for what, value in (("weights", new), ("moments", moment)):
            zeros = value[~(old & now)]
            ensure(not (zeros.any() or zeros.signbit().any()), f"{what} at {path!r}: found {zeros} where zeros belong")


@law("training", "Dynamic sparsity leaves weights and moments that stay alive as they are, bit for bit.")
def dynamic_keeps_what_stays(training: Any, case: Case) -> None:
    """``w(t+1) = w(t)`` wherever both masks keep."""
    found = _dynamic(training, case)
    for path, old, now, value, new, _, _ in found.rows():
        ensure(torch.equal(value[old & now], new[old & now]), f"weights at {path!r} that stay alive have changed")
    ensure(found.moments["count"] == 7, "the step count of the optimizer was changed")


@law("training", "The smallest weights drop; where gradients decide, the largest of the pruned entries grow.")
def lowest_drop_and_highest_grow(training: Any, case: Case) -> None:
    """``max |w dropped| <= min |w kept|``, ``min |g grown| >= max |g not grown|``."""
    found = _dynamic(training, case)
    for path, old, now, value, _, grad, _ in found.rows():
        dropped, kept = value[old & ~now].abs(), value[old & now].abs()
        if dropped.numel() and kept.numel():
            ensure(dropped.max() <= kept.min(), f"{path!r}: dropped {dropped}, kept {kept}")
        grown, left = grad[now & ~old].abs(), grad[~now & ~old].abs()
        if found.by_gradient and grown.numel() and left.numel():
            ensure(grown.min() >= left.max(), f"{path!r}: gradients {grown} grew, {left} did not")


@law("training", "A round of a lottery ends at the weights it rewinds to, without what was pruned; masks shrink.")
def rounds_rewind(training: Any, case: Case) -> None:
    """``w = m * w(rewind)`` at the start of every round but the first."""
    params = _params(case)
    rounds, steps = case.draw(st.integers(0, 3), "rounds"), case.draw(st.integers(1, 4), "steps")
    rewind = case.draw(st.integers(0, steps - 1), "rewind")
    method = training.lottery(l1_unstructured(0.4), rounds=rounds, steps=steps, rewind=rewind)
    moments = _like(params, case, "moments")
    state, now, to = method.init(params, moments), (params, moments), (params, moments)
    for number in range(rounds * (steps - rewind) + steps):
        before = state
        trained = (_like(params, case, f"weights at {number}"), _like(params, case, f"moments at {number}"))
        state, *now = method.update(state, *trained)
        if number + 1 == rewind:
            to = trained
        ensure(algebra.is_subset(state.masks, before.masks), "a round brought entries back")
        if state.round != before.round:
            same(now[0], masking.bake(to[0], state.masks), "weights after rewinding")
            same(now[1], masking.bake(to[1], state.masks), "optimizer state after rewinding")
        else:
            same(now[0], trained[0], "weights between rounds")
    ensure(method.done(state), f"found {state.round, state.step} at the end of the last round, and not done")


@law("training", "Shuffled masks keep as many entries of every leaf, and None where there was None.")
def shuffled_masks_keep_counts(training: Any, case: Case) -> None:
    """``sum(shuffled(m)) = sum(m)``, leaf by leaf."""
    params = _params(case)
    masks = case.masks(params)
    found = training.shuffled(params, masks, seed=case.draw(st.integers(0, 9), "seed"))
    expected = algebra.counts(params, masks)
    ensure(algebra.counts(params, found) == expected, f"found {algebra.counts(params, found)}, expected {expected}")
    for path, mask in trees.beside(params, masks, "masks").items():
        ensure(
            (mask is None) == (trees.beside(params, found, "masks")[path] is None),
            f"{path!r}: None and a mask exchanged",
        )


@law(
    "training",
    "Every tree in an optimizer state that is parallel to the params is zero where pruned; no other changes.",
)
def projected_state_is_zero_where_pruned(training: Any, case: Case) -> None:
    """``project_state(s, p, m) = m * s`` for parallel trees."""
    params = _params(case)
    masks, moments = case.masks(params), _like(params, case, "moments")
    other = torch.ones(3)
    with untouched(params, masks, moments):
        found = training.project_state((4, [moments, {"other": other}], None), params, masks)
    ensure(found[0] == 4 and found[1][1]["other"] is other and found[2] is None, f"found {found}")
    same(found[1][0], masking.bake(moments, masks), "moments")


@law("training", "Straight-through is the masked value forward and the dense gradient at that value backward.")
def straight_through_is_dense_backward(training: Any, case: Case) -> None:
    """``value = m * w``, ``gradient = g(m * w)``; SR-STE adds ``decay * (1 - m) * w``."""
    params = _params(case)
    masks, weights = case.masks(params), _like(params, case, "weights")
    same(training.straight_through(params, masks), masking.bake(params, masks), "straight_through(params, masks)")

    def gradient(applied: Callable[[Params], Params]) -> Params:
        def loss(tree: Params) -> Tensor:
            pairs = zip(trees.params(applied(tree))[0], trees.params(weights)[0], strict=True)
            return sum((((leaf + 1) * w).double().sum() for leaf, w in pairs), torch.zeros(()))

        return torch.func.grad(loss)(params)

    same(gradient(lambda p: training.straight_through(p, masks)), weights, "the gradient of straight_through")
    found = gradient(lambda p: training.sr_ste(p, masks, decay=0.5))
    leaves, spec = trees.params(params)
    pruned = zip(leaves, trees.params(weights)[0], trees.align(spec, masks, "masks"), strict=True)
    expected = [w if mask is None else w + 0.5 * (leaf * ~mask) for leaf, w, mask in pruned]
    same(found, spec.unflatten(expected), "the gradient of sr_ste")


@law("training", "A state that was saved and loaded goes on exactly as the one that was not.")
def saved_states_go_on(training: Any, case: Case) -> None:
    """``update(load(save(s))) = update(s)``."""
    params = case.draw(strategies.params(matrix=True, finite=True, nested=False), "params")
    weights, grads = _like(params, case, "weights"), _like(params, case, "grads")
    pruner, step = l1_unstructured(0.5), case.draw(st.integers(0, 3), "step")
    gradual = training.gradual(pruner, lambda step: step / 4, begin=0, end=4, every=1)
    dynamic = training.dynamic(pruner, drop=schedules.constant(0.5), every=1, end=9, seed=0)
    ways: list[tuple[Any, Callable[[Any], Masks]]] = [
        (gradual, lambda state: gradual.update(state, weights).masks),
        (dynamic, lambda state: dynamic.update(state, weights, None, grads=grads)[0].masks),
    ]
    for method, update in ways:
        state = method.init(params)._replace(step=step)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        ensure(type(loaded) is type(state) and loaded.step == step, f"found {loaded!r}")
        same(update(loaded), update(state), "masks after the next update")
