"""Random: the baseline every other criterion has to beat."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from funcprune import trees
from funcprune.structures import Coupled, Structure, grouped
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True)
class Random:
    """Uniform on [0, 1), float32, one draw a unit, by seed and path."""

    seed: int

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed={self.seed!r}: found {type(self.seed).__name__}, expected an int")

    def __call__(self, params: Params, masks: Masks | None = None) -> Scores:
        """One draw an entry, whatever the masks."""
        leaves, spec = trees.params(params)
        rows = zip(trees.paths(params), leaves, strict=True)
        return spec.unflatten([self._draw(path, leaf.shape).to(leaf.device) for path, leaf in rows])

    def unit_scores(
        self, params: Params, masks: Masks | None, structure: Structure | Coupled, paths: Sequence[str], /
    ) -> dict[str, Tensor]:
        """One draw a unit: a unit that lost entries already is as likely to go as a whole one."""
        named = trees.named(params)
        return {
            group.name: self._draw(group.name, group.unit_shape(named)).to(named[group.name].device)
            for group in grouped(structure, paths, named)
        }

    def _draw(self, path: str, shape: tuple[int, ...]) -> Tensor:
        digest = hashlib.blake2b(f"{self.seed}:{path}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")

    def __repr__(self) -> str:
        return f"random({self.seed})"


def random(seed: int, /) -> Random:
    """The criterion that ranks at random. The draws of a leaf depend on the seed and its path alone.

    They are independent of other leaves, the same in every process and on every device, and leave the global
    generators alone.

    >>> draws = fp.criteria.random(0)({"w": torch.zeros(2)})["w"]
    >>> torch.equal(draws, fp.criteria.random(0)({"w": torch.ones(2)})["w"])
    True
    """
    return Random(seed)
