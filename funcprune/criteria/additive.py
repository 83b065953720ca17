"""Criteria whose scores are functions of sums: entries contribute, and a unit scores by the sum of its entries'."""

from collections.abc import Sequence

from torch import Tensor

from funcprune import trees
from funcprune.structures import Coupled, Structure, grouped
from funcprune.trees import Masks, Params, Scores


class Additive:
    """What such criteria share; they define `contributions`, and `finish` where the score is not the sum itself."""

    def contributions(self, params: Params, masks: Masks | None, /) -> Scores:
        """What each entry contributes: a tree like the params, None at leaves that are not of floating point."""
        raise TypeError(f"{type(self).__name__} must define contributions(params, masks)")

    def finish(self, totals: Tensor, /) -> Tensor:
        """The score of a sum of contributions."""
        return totals

    def __call__(self, params: Params, masks: Masks | None = None) -> Scores:
        """The entry scores at the masked params."""
        leaves, spec = trees.flatten(self.contributions(params, masks))
        return spec.unflatten([None if leaf is None else self.finish(leaf) for leaf in leaves])

    def unit_scores(
        self, params: Params, masks: Masks | None, structure: Structure | Coupled, paths: Sequence[str], /
    ) -> dict[str, Tensor]:
        """The scores of the sums over the kept entries of each unit."""
        found = trees.beside(params, self.contributions(params, masks), "scores")
        kept = dict.fromkeys(found) if masks is None else trees.beside(params, masks, "masks")
        groups = grouped(structure, paths, trees.named(params))
        for group in groups:
            for path in group.scored:
                if found[path] is None:
                    raise ValueError(f"{self!r} has no score at {path!r}: exclude the leaf with where=")
        return {group.name: self.finish(group.total(found, kept)) for group in groups}
