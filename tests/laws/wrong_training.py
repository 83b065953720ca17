"""Deliberately wrong schedules and methods, one or more for every law of them: what the law must catch."""

import itertools
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

import funcprune as fp
from funcprune import training, trees


class Wrong(NamedTuple):
    """A wrong subject; the laws of training draw their own trees."""

    subject: Any
    trees: Any = None


def every_ramp(ramp: Callable[..., Callable[[int], float]]) -> Wrong:
    """All schedules replaced by ``ramp(start, stop, begin, end)``."""

    def make(start: float, stop: float, *, begin: int, end: int, **_: Any) -> Callable[[int], float]:
        return ramp(start, stop, begin, end)

    names = ("linear", "polynomial", "exponential", "cosine", "one_cycle")
    return Wrong(SimpleNamespace(**dict.fromkeys(names, make)))


def method(**parts: Any) -> Wrong:
    return Wrong(SimpleNamespace(**{**vars(training), **parts}))


def between(start: float, stop: float, begin: int, end: int, inside: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: start if step <= begin else stop if step >= end else inside(step)


def approaching(start: float, stop: float, begin: int, end: int) -> Callable[[int], float]:
    return lambda step: start + (stop - start) * (1 - 0.9 ** max(0, step - begin))


def ahead(start: float, stop: float, begin: int, end: int) -> Callable[[int], float]:
    """One step ahead: begin is no longer the start."""
    return lambda step: start + (stop - start) * min(max((step + 1 - begin) / (end - begin), 0.0), 1.0)


def overshooting(start: float, stop: float, begin: int, end: int) -> Callable[[int], float]:
    return between(start, stop, begin, end, lambda step: stop + 0.1 * (stop - start))


def sawtooth(start: float, stop: float, begin: int, end: int) -> Callable[[int], float]:
    return between(start, stop, begin, end, lambda step: stop if step % 2 else start)


def late_join(*parts: Any, at: Any) -> Callable[[int], float]:
    return lambda step: parts[bisect_left(at, step)](step)


@dataclass
class Changed:
    """A method whose update is changed: ``change(method, before, arguments, result) -> result``."""

    method: Any
    change: Callable[..., Any]

    def init(self, *args: Any) -> Any:
        return self.method.init(*args)

    def done(self, state: Any) -> bool:
        return self.method.done(state)

    def update(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        return self.change(self.method, state, args, self.method.update(state, *args, **kwargs))


def changed(name: str, change: Callable[..., Any]) -> Wrong:
    make = getattr(training, name)
    return method(**{name: lambda *args, **kwargs: Changed(make(*args, **kwargs), change)})


def regrowing(made: Any, before: Any, args: Any, after: Any) -> Any:
    """Ranks all entries at every update, whatever is pruned."""
    return after._replace(masks=made.pruner.at(made.schedule(before.step))(args[0]))


def modulo(made: Any, before: Any, args: Any, after: Any) -> Any:
    """Updates at multiples alone, and may miss its end."""
    return after if before.step % made.every == 0 else after._replace(masks=before.masks)


def dropping_only(made: Any, before: Any, args: Any, after: Any) -> Any:
    state, *rest = after
    return state._replace(masks=fp.masks.intersect(before.masks, state.masks)), *rest


def forgetting_moments(made: Any, before: Any, args: Any, after: Any) -> Any:
    return after[0], after[1], args[1]


def multiplied(made: Any, before: Any, args: Any, after: Any) -> Any:
    """Zeros of either sign."""
    return after[0], fp.apply(args[0], fp.masks.intersect(before.masks, after[0].masks)), after[2]


def old_values(made: Any, before: Any, args: Any, after: Any) -> Any:
    """Grown weights start at one."""
    grown = fp.masks.difference(args[0], after[0].masks, before.masks)
    leaves, spec = trees.flatten(after[1])
    rows = zip(leaves, trees.align(spec, grown, "masks"), strict=True)
    return after[0], spec.unflatten([leaf + mask for leaf, mask in rows]), after[2]


def scaled(made: Any, before: Any, args: Any, after: Any) -> Any:
    leaves, spec = trees.flatten(after[1])
    return after[0], spec.unflatten([leaf * 2 for leaf in leaves]), after[2]


def negative(params: Any, masks: Any) -> Any:
    leaves, spec = trees.flatten(params)
    return spec.unflatten([-leaf.abs() for leaf in leaves])


def largest_drop(pruner: Any, **options: Any) -> Any:
    return training.dynamic(pruner, criterion=negative, **options)


def random_growth(pruner: Any, **options: Any) -> Any:
    return training.dynamic(pruner, **{**options, "seed": 0})


def to_the_start(pruner: Any, *, rewind: int, steps: int, **options: Any) -> Any:
    """Rewinds to the weights before the first step, at the right step."""
    made = training.lottery(pruner, rewind=rewind, steps=steps, **options)

    def change(made: Any, before: Any, args: Any, after: Any) -> Any:
        if before.round == 0 and before.step + 1 == rewind:
            state = after[0]._replace(params=before.params, opt_state=before.opt_state)
            return state, *after[1:]
        return after

    return Changed(made, change)


def latent_moments(made: Any, before: Any, args: Any, after: Any) -> Any:
    return after if after[0].round == before.round else (after[0], after[1], after[0].opt_state)


def coin(params: Any, masks: Any, *, seed: int) -> Any:
    leaves, spec = trees.flatten(masks)
    random = torch.Generator().manual_seed(seed)
    return spec.unflatten([None if leaf is None else torch.rand(leaf.shape, generator=random) < 0.5 for leaf in leaves])


CALLS = itertools.count()


def forgetful(made: Any, before: Any, args: Any, after: Any) -> Any:
    """The method, not the state, counts its updates."""
    return after._replace(masks=made.pruner.at(next(CALLS) % 2)(args[0]))


GUARDS: dict[str, list[Wrong]] = {
    "schedule_is_exact_at_its_ends": [every_ramp(approaching), every_ramp(ahead)],
    "schedule_never_turns": [every_ramp(overshooting), every_ramp(sawtooth)],
    "join_hands_over_at_its_boundaries": [Wrong(SimpleNamespace(join=late_join))],
    "gradual_masks_only_shrink": [changed("gradual", regrowing)],
    "gradual_ends_on_target": [changed("gradual", modulo)],
    "dynamic_counts_stay": [changed("dynamic", dropping_only)],
    "grown_start_at_zero": [
        changed("dynamic", forgetting_moments),
        changed("dynamic", multiplied),
        changed("dynamic", old_values),
    ],
    "dynamic_keeps_what_stays": [changed("dynamic", scaled)],
    "lowest_drop_and_highest_grow": [method(dynamic=largest_drop), method(dynamic=random_growth)],
    "rounds_rewind": [method(lottery=to_the_start), changed("lottery", latent_moments)],
    "shuffled_masks_keep_counts": [method(shuffled=coin), method(shuffled=lambda p, m, seed: fp.masks.full(p, m))],
    "projected_state_is_zero_where_pruned": [method(project_state=lambda state, params, masks: state)],
    "straight_through_is_dense_backward": [
        method(straight_through=fp.apply),
        method(sr_ste=lambda params, masks, decay: training.straight_through(params, masks)),
    ],
    "saved_states_go_on": [changed("gradual", forgetful)],
}
