"""Pruners that rank nothing: chains, identity, masks from elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass

from funcprune import masks as algebra
from funcprune import selectors, trees
from funcprune.pruners.state import State
from funcprune.selectors import Where
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, repr=False)
class _Chain:
    pruners: tuple[Callable[..., Masks], ...]

    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        _refuse_scores("chain", scores)
        result = State(params, masks).with_masks()
        for pruner in self.pruners:
            result = pruner(params, result)
        return result

    def at(self, sparsity: float, /) -> "_Chain":
        """Each pruner of the chain with that target; TypeError where one has no `at`."""
        return _Chain(tuple(at(pruner, sparsity) for pruner in self.pruners))

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.pruners))})"


@dataclass(frozen=True, repr=False)
class _Identity:
    where: selectors.Selector

    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        _refuse_scores("identity", scores)
        tree = State(params, masks)
        for path in selectors.resolve(self.where, tree.leaves):
            tree.masks[path] = algebra.written(tree.leaves[path], tree.masks[path])
        return tree.with_masks()

    def at(self, sparsity: float, /) -> "_Identity":
        """Itself: it has no target."""
        return self

    def __repr__(self) -> str:
        return f"identity(where={self.where!r})"


@dataclass(frozen=True, repr=False, eq=False)
class _CustomFromMask:
    masks: Masks

    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        _refuse_scores("custom_from_mask", scores)
        before = State(params, masks).with_masks()
        algebra.check(params, self.masks)
        return algebra.intersect(before, self.masks)

    def at(self, sparsity: float, /) -> "_CustomFromMask":
        """Itself: it has no target."""
        return self

    def __repr__(self) -> str:
        leaves, _ = trees.flatten(self.masks)
        return f"custom_from_mask(<{sum(leaf is not None for leaf in leaves)} masks>)"


def chain(*pruners: Callable[..., Masks]) -> Callable[..., Masks]:
    """A pruner that applies ``pruners`` one after the other, each to the masks of the one before.

    >>> once = fp.l1_unstructured(1)
    >>> fp.chain(once, once)({"w": torch.tensor([[3.0, 1.0, 2.0]])})
    {'w': tensor([[ True, False, False]])}
    """
    for pruner in pruners:
        if not callable(pruner):
            raise TypeError(f"chain: found {pruner!r}, expected pruners, callables (params, masks) -> masks")
    return _Chain(pruners)


def identity(*, where: Where = selectors.default) -> Callable[..., Masks]:
    """A pruner that prunes nothing; leaves selected without a mask get an all-True one.

    >>> fp.identity()({"w": torch.zeros(1, 2)})
    {'w': tensor([[True, True]])}
    """
    return _Identity(selectors.parse(where))


def custom_from_mask(masks: Masks, /) -> Callable[..., Masks]:
    """A pruner that prunes what ``masks`` prune: the intersection with the masks so far.

    >>> fp.custom_from_mask({"w": torch.tensor([True, False])})({"w": torch.zeros(2)})
    {'w': tensor([ True, False])}
    """
    return _CustomFromMask(masks)


def at(pruner: Callable[..., Masks], sparsity: float, /) -> Callable[..., Masks]:
    """The pruner with the target ``sparsity`` instead of its own; TypeError where it has no method ``at``."""
    method = getattr(pruner, "at", None)
    if not callable(method):
        raise TypeError(
            f"pruner: found {pruner!r}, expected a Pruner, a chain of them, or a pruner of your own with a method "
            "at(sparsity) that returns one"
        )
    found: Callable[..., Masks] = method(sparsity)
    return found


def _refuse_scores(name: str, scores: Scores | None) -> None:
    if scores is not None:
        raise TypeError(f"{name} ranks nothing: found scores=, expected none: pass them to a Pruner")
