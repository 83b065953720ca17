"""What a pruner asks of a criterion."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from funcprune.structures import Coupled, Structure
from funcprune.trees import Masks, Params, Scores

Criterion: TypeAlias = Callable[[Params, Masks], Scores]
"""``(params, masks) -> scores``, higher = keep."""


@runtime_checkable
class Entrywise(Protocol):
    """A criterion that scores each entry by that entry alone."""

    def entrywise(self, values: Tensor, /) -> Tensor:
        """The scores of any block of entries of a leaf."""


@runtime_checkable
class UnitScored(Protocol):
    """A criterion that scores units itself."""

    def unit_scores(
        self, params: Params, masks: Masks, structure: Structure | Coupled, paths: Sequence[str], /
    ) -> dict[str, Tensor]:
        """The unit scores of each of `structures.grouped`, of the shape of its units, by its name."""
