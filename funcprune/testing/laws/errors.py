"""Laws of refusal: what does not fit is an error that names the path, and nothing has changed after it.

A subject of the kind ``"call"`` is any function of ``(params, masks)``: ``apply``, ``bake``, a pruner.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st

from funcprune import masks as algebra
from funcprune import trees
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, untouched
from funcprune.testing.laws import units


@law("call", "A mask of another shape is refused, with its path.")
def wrong_shapes_are_refused(call: Any, case: Case) -> None:
    """ValueError."""
    flat, path = _flat(case)
    bad = torch.ones((*flat[path].shape, 2), dtype=torch.bool)
    _refused(call, flat, {**dict.fromkeys(flat), path: bad}, ValueError, path)


@law("call", "A mask that is not bool is refused, with its path.")
def wrong_dtypes_are_refused(call: Any, case: Case) -> None:
    """TypeError."""
    flat, path = _flat(case)
    dtype = case.draw(st.sampled_from([torch.float32, torch.uint8, torch.int64]), "dtype")
    _refused(call, flat, {**dict.fromkeys(flat), path: torch.ones(flat[path].shape, dtype=dtype)}, TypeError, path)


@law("call", "Masks that lack a path, have one too many, or a subtree for a leaf, are refused, with that path.")
def wrong_structures_are_refused(call: Any, case: Case) -> None:
    """ValueError."""
    flat, path = _flat(case)
    masks = dict.fromkeys(flat)
    kind = case.draw(st.sampled_from(["missing", "unknown", "subtree"]), "kind")
    if kind == "missing":
        del masks[path]
    elif kind == "unknown":
        path = "unheard.of"
        masks[path] = None
    else:
        masks[path] = {"inner": None}
    _refused(call, flat, masks, ValueError, path)


@law("call", "A leaf of the params that is no tensor is refused, with its path.")
def non_tensors_are_refused(call: Any, case: Case) -> None:
    """TypeError."""
    flat, path = _flat(case)
    bad = case.draw(st.sampled_from([None, 1.0, "weight"]), "leaf")
    _refused(call, {**flat, path: bad}, dict.fromkeys(flat), TypeError, path)


@law(
    "pruner",
    "A NaN score on a unit that is alive is refused, with its path; on a dead one it is no matter.",
    needs=["budgeted"],
)
def nan_scores_are_refused(pruner: Any, case: Case) -> None:
    """ValueError."""
    params = case.params()
    judged = replace(pruner, amount=0.5, sparsity=None)
    named, leaves, spec = trees.named(params), *trees.params(params)
    paths = [path for path in units.selected(judged, params) if named[path].numel() > 1]
    if not paths:
        return
    path = case.draw(st.sampled_from(paths), "path")
    bad = spec.unflatten(
        [
            torch.full(leaf.shape, float("nan")) if name == path else torch.ones(leaf.shape)
            for name, leaf in zip(trees.paths(params), leaves, strict=True)
        ],
    )
    ranked = zip(
        units.alive(judged, params, spec.unflatten([None] * len(leaves))),
        units.unit_scores(judged, params, spec.unflatten([None] * len(leaves)), bad),
        strict=True,
    )
    if not any(
        scores.isnan().any() and 0 < round(int(alive.sum()) * 0.5) < int(alive.sum()) for alive, scores in ranked
    ):
        return  # where nothing or everything goes, nothing is ranked
    _raises(lambda: judged(params, scores=bad), ValueError, path)
    dead = spec.unflatten(
        [
            torch.zeros(leaf.shape, dtype=torch.bool) if name == path else None
            for name, leaf in zip(trees.paths(params), leaves, strict=True)
        ],
    )
    algebra.check(params, judged(params, dead, scores=bad))


@law("pruner", "Scores of another shape or of an integer dtype are refused, with their path.", needs=["budgeted"])
def wrong_scores_are_refused(pruner: Any, case: Case) -> None:
    """ValueError, TypeError."""
    params = case.params()
    paths = units.selected(pruner, params)
    if not paths:
        return
    path, wrong = case.draw(st.sampled_from(paths), "path"), case.draw(st.sampled_from(["shape", "dtype"]), "wrong")
    leaves, spec = trees.params(params)
    scores = []
    for name, leaf in zip(trees.paths(params), leaves, strict=True):
        dtype = torch.int64 if name == path and wrong == "dtype" else torch.float32
        scores.append(torch.ones((*leaf.shape, 1) if name == path and wrong == "shape" else leaf.shape, dtype=dtype))
    error = ValueError if wrong == "shape" else TypeError
    _raises(lambda: pruner(params, scores=spec.unflatten(scores)), error, path)


@law(
    "pruner",
    "An int amount of more units than are alive is refused, by name.",
    needs=["budgeted"],
)
def too_many_units_are_refused(pruner: Any, case: Case) -> None:
    """ValueError."""
    params = case.params()
    masks = case.masks(params)
    alive = [int(row.sum()) for row in units.alive(pruner, params, masks)]
    if alive:
        extra = case.draw(st.integers(1, 3), "too many by")
        judged = replace(pruner, amount=max(alive) + extra, sparsity=None)
        with untouched(params, masks):
            _raises(lambda: judged(params, masks), ValueError, "amount")


@law("constructor", "An amount that is negative, above 1.0, NaN, a bool or no number, or given twice, is refused.")
def wrong_amounts_are_refused(constructor: Any, case: Case) -> None:
    """ValueError."""
    wrong = [-1, -0.1, 1.5, float("nan"), float("inf"), True, False, "half", None]
    amount = case.draw(st.sampled_from(wrong), "amount")
    _raises(lambda: constructor(amount), ValueError, "amount")
    if not isinstance(amount, int) or isinstance(amount, bool):
        _raises(lambda: constructor(sparsity=amount), ValueError, "sparsity")
    _raises(lambda: constructor(0.5, sparsity=0.5), ValueError, "both")


def _flat(case: Case) -> tuple[dict[str, Any], str]:
    """Params, flat, and the path at which something will be wrong."""
    params = case.draw(strategies.params(matrix=True, nested=False), "params")
    return params, case.draw(st.sampled_from(list(params)), "path")


def _refused(call: Any, params: Any, masks: Any, error: type[Exception], path: str) -> None:
    with untouched(params, masks):
        _raises(lambda: call(params, masks), error, path)


def _raises(function: Callable[[], Any], expected: type[Exception], word: str) -> None:
    try:
        found = function()
    except (ValueError, TypeError) as error:
        ensure(isinstance(error, expected), f"found {type(error).__name__}, expected {expected.__name__}: {error}")
        ensure(word in str(error), f"the error does not name {word!r}: {error}")
    except Exception as error:
        raise AssertionError(f"found {type(error).__name__}, expected {expected.__name__}: {error}") from error
    else:
        raise AssertionError(
            f"nothing was refused, expected {expected.__name__} naming {word!r}; the result is {found}"
        )
