"""Magnitude: keep what is large."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from funcprune import trees
from funcprune.structures import Coupled, Structure, grouped
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True)
class Magnitude:
    """``|W|``, elementwise; a structured unit scores by its norm."""

    def __call__(self, params: Params, masks: Masks | None = None) -> Scores:
        """The absolute values, whatever the masks."""
        leaves, spec = trees.params(params)
        return spec.unflatten(map(self.entrywise, leaves))

    def entrywise(self, values: Tensor, /) -> Tensor:
        """The absolute values of a block of entries."""
        return values.detach().abs()

    def unit_scores(
        self, params: Params, masks: Masks | None, structure: Structure | Coupled, paths: Sequence[str], /
    ) -> dict[str, Tensor]:
        """The norms of units as `structures.Slices` has them; they take no note of signs, so none is taken off here."""
        values = {path: leaf.abs() if leaf.is_complex() else leaf for path, leaf in trees.named(params).items()}
        kept = dict.fromkeys(values) if masks is None else trees.beside(params, masks, "masks")
        return {group.name: group.pool(values, kept) for group in grouped(structure, paths, values)}

    def __repr__(self) -> str:
        return "magnitude()"


def magnitude() -> Magnitude:
    """The criterion ``|W|``: entries of small magnitude go first. Looks at each entry alone, so pruning streams.

    >>> fp.criteria.magnitude()({"w": torch.tensor([-2.0, 1.0])})
    {'w': tensor([2., 1.])}
    """
    return Magnitude()
