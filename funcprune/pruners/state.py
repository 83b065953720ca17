"""The params and masks a pruner works on, by path, checked."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from funcprune import masks as algebra
from funcprune import trees
from funcprune.trees import Masks, Params, Scores


class State:
    """Params and masks by path, in natural order, checked; masks may be exchanged and put together again."""

    def __init__(self, params: Params, masks: Masks | None) -> None:
        leaves, self.spec = trees.params(params)
        if masks is None:
            found: list[Tensor | None] = [None] * len(leaves)
        else:
            _, _, (found,) = algebra.aligned(params, masks)
        self.params = params
        self.order = trees.paths(params)
        natural = sorted(self.order, key=trees.natural)
        rows = dict(zip(self.order, zip(leaves, found, strict=True), strict=True))
        self.leaves = {path: rows[path][0] for path in natural}
        self.masks = {path: rows[path][1] for path in natural}
        for path in natural:
            for what, tensor in (("params", self.leaves[path]), ("masks", self.masks[path])):
                if tensor is not None:
                    _check_concrete(f"{what} at {path!r}", tensor)

    def with_masks(self) -> Masks:
        """The masks as a tree like the params."""
        return self.spec.unflatten([self.masks[path] for path in self.order])

    def check_entrywise(self, paths: list[str]) -> None:
        """Raises TypeError where a criterion that looks at the entries of these leaves finds none it can rank."""
        for path in paths:
            if not self.leaves[path].is_complex():
                _check_ranked(f"params at {path!r}", self.leaves[path])

    def scores(self, scores: Scores, paths: list[str]) -> list[Tensor]:
        """The checked scores of the leaves at ``paths``."""
        found = trees.beside(self.params, scores, "scores")
        for path in paths:
            leaf, score = self.leaves[path], found[path]
            if score is None:
                raise ValueError(f"scores at {path!r}: found None, expected a tensor: the leaf is selected for pruning")
            _check_ranked(f"scores at {path!r}", score)
            if score.shape != leaf.shape or score.device != leaf.device:
                raise ValueError(
                    f"scores at {path!r}: found shape {tuple(score.shape)} on {score.device}, expected "
                    f"{tuple(leaf.shape)} on {leaf.device}, as the parameter"
                )
            _check_concrete(f"scores at {path!r}", score)
        return [found[path].detach() for path in paths]


def _check_ranked(what: str, tensor: Tensor) -> None:
    # abs() of the least integer is negative, and eight bits compare with nothing
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
        raise TypeError(
            f"{what}: found dtype {tensor.dtype}, expected a floating-point dtype of two bytes or more: convert it, "
            "or exclude the leaf with where="
        )


def _check_concrete(what: str, tensor: Tensor) -> None:
    """Raises where a tensor holds no values to rank: a pruner decides by numbers, outside of any transform."""
    if tensor.layout != torch.strided:
        raise TypeError(f"{what}: found layout {tensor.layout}, expected a dense tensor: use .to_dense()")
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise ValueError(f"{what}: found a tensor inside grad, vmap or another transform: call pruners outside of it")
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        raise ValueError(f"{what}: found a tensor without data (meta or traced): pruners need real values")
