"""Traits: what is known of a pruner or criterion, and hence which laws apply to it."""

import dataclasses
import pickle
from collections.abc import Iterable
from typing import Any

from funcprune.allocation import Within
from funcprune.criteria import Magnitude
from funcprune.criteria.types import Entrywise, UnitScored
from funcprune.pruners import Pruner, identity
from funcprune.structures import Elements, Slices

__all__ = ["TRAITS", "of_criterion", "of_pruner", "widened"]

TRAITS: dict[str, str] = {
    "deterministic": "the same arguments give the same result; nothing is drawn from a global generator",
    "nested": "works on nested trees as on flat dicts",
    "selects": "has `where`: the leaves it touches",
    "budgeted": "has the fields of `funcprune.Pruner`, a budget that a law may exchange, and accepts scores=",
    "mask_independent": "scores do not depend on the masks",
    "pooled": "unit scores are the structure's pooled entry scores, as the criterion returns them",
    "magnitude": "entries rank by magnitude: signs, and powers of two as a common factor, do not matter",
    "equivariant": "permuting the slices of a leaf permutes its scores",
    "leaf_local": "the masks of a leaf depend on that leaf and its path alone",
    "seeded": "the criterion draws from a stream of (seed, path) and has a field `seed`",
    "picklable": "can be pickled",
    "entrywise": "the criterion has `entrywise`: the score of an entry depends on that entry alone",
    "counted": "the method prunes as many entries as its `amount` says",
}
"""The traits, each with what it promises."""

_LIBRARY = "funcprune."


def of_criterion(criterion: Any, /) -> frozenset[str]:
    """The traits that a criterion certainly has.

    Of a criterion that is not the library's it is assumed that it is deterministic, and no more.

    >>> sorted(fp.testing.traits.of_criterion(lambda params, masks: params))
    ['deterministic']
    """
    found = {"deterministic"}
    if isinstance(criterion, Magnitude):
        found |= {"nested", "mask_independent"}
    if isinstance(criterion, Entrywise):
        found |= {"entrywise", "mask_independent"}
    if dataclasses.is_dataclass(criterion) and hasattr(criterion, "seed") and isinstance(criterion, UnitScored):
        found |= {"nested", "mask_independent"}
    return frozenset(found)


def of_pruner(pruner: Any, /) -> frozenset[str]:
    """The traits that a pruner certainly has; of a callable that is not the library's, that it is deterministic.

    >>> "magnitude" in fp.testing.traits.of_pruner(fp.l1_unstructured(0.5))
    True
    """
    found = {"deterministic"}
    if type(pruner).__module__.startswith(_LIBRARY) and _pickles(pruner):
        found |= {"picklable"}
    if not isinstance(pruner, Pruner):
        return frozenset(found | ({"nested"} if _is_nested(pruner) else set()))
    criterion, structure = pruner.criterion, pruner.structure
    found |= {"selects"} | (of_criterion(criterion) - {"entrywise"})
    known_scope = pruner.scope in ("leaf", "global") or isinstance(pruner.scope, Within)
    if known_scope and hasattr(structure, "expand") and (pruner.amount, pruner.sparsity) != (None, None):
        found |= {"budgeted"}
        found |= {"pooled"} if isinstance(criterion, Magnitude) or not isinstance(criterion, UnitScored) else set()
    if isinstance(criterion, Magnitude):
        found |= {"magnitude"} if _scales(structure) else set()
        found |= {"equivariant"} if isinstance(pruner.scope, str) and type(structure) in (Elements, Slices) else set()
    if hasattr(criterion, "seed") and isinstance(criterion, UnitScored):
        found |= {"seeded"}
    if (pruner.scope == "leaf" or isinstance(pruner.scope, Within)) and found & {"magnitude", "seeded"}:
        found |= {"leaf_local"}
    return frozenset(found)


def widened(found: frozenset[str], traits: Iterable[str], /) -> frozenset[str]:
    """The traits with more of them, and without those written ``"-name"``; ValueError for unknown ones.

    >>> sorted(fp.testing.traits.widened(frozenset({"nested"}), ["deterministic", "-nested"]))
    ['deterministic']
    """
    result = set(found)
    for trait in traits:
        name = trait.removeprefix("-")
        if name not in TRAITS:
            raise ValueError(f"unknown trait {name!r}: expected one of {', '.join(TRAITS)}")
        result = result - {name} if trait.startswith("-") else result | {name}
    return frozenset(result)


def _is_nested(pruner: Any) -> bool:
    """Whether a pruner that ranks nothing takes any tree: identity, and a chain of such; masks have their structure."""
    parts = getattr(pruner, "pruners", None)
    if isinstance(parts, tuple):
        return all("nested" in of_pruner(part) for part in parts)
    return isinstance(pruner, type(identity()))


def _scales(structure: Any) -> bool:
    """Whether the norms of units scale exactly by powers of two."""
    return type(structure) is Elements or (
        type(structure) is Slices and structure.n in (0, 1, 2, float("inf"), -float("inf"))
    )


def _pickles(pruner: Any) -> bool:
    try:
        pickle.dumps(pruner)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True
