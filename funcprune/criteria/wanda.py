"""Wanda: magnitudes times the norms of the inputs they meet."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from funcprune import masks as algebra
from funcprune import trees
from funcprune.criteria import activations
from funcprune.criteria.gradients import Progress, rereadable
from funcprune.criteria.models import skeleton
from funcprune.structures import Coupled, Structure, grouped
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class Wanda:
    """``|W_ij| * |X_j|``, the norm over the calibration batches."""

    model: nn.Module
    batches: Iterable[Any]
    progress: Progress | None = None

    def __call__(self, params: Params, masks: Masks | None = None) -> Scores:
        """The scores of the weights of Linear and convolution layers; None elsewhere."""
        _, spec = trees.params(params)
        found = self._scores(params, masks, activations.weights(self.model))
        return spec.unflatten([found.get(path) for path in trees.paths(params)])

    def unit_scores(
        self, params: Params, masks: Masks | None, structure: Structure | Coupled, paths: Sequence[str], /
    ) -> dict[str, Tensor]:
        """The pooled scores of the leaves asked for; the inputs of others are not looked at."""
        groups = grouped(structure, paths, trees.named(params))
        found = self._scores(params, masks, {path for group in groups for path in group.scored})
        kept = dict.fromkeys(params) if masks is None else masks
        return {group.name: group.pool(found, kept) for group in groups}

    def _scores(self, params: Params, masks: Masks | None, paths: Collection[str]) -> dict[str, Tensor]:
        squares: dict[str, Tensor] = {}

        def take(path: str, columns: Tensor) -> None:
            power = columns.double().square().sum(1)  # a square leaves the range of float16 at 256
            squares[path] = squares[path] + power if path in squares else power

        everything = dict.fromkeys(trees.named(params)) if masks is None else masks
        algebra.check(params, everything)
        activations.stream(self.model, params, everything, self.batches, paths, take, self.progress)
        layers = activations.weights(self.model)
        scores = {}
        for path in paths:
            weight = params[path].detach().abs().to(torch.promote_types(params[path].dtype, torch.float32))
            norms = squares[path].sqrt().to(weight.dtype)
            product = activations.matrix(layers[path][0], weight) * norms[:, None]
            scores[path] = activations.weight_of(product, weight.shape).contiguous()
        return scores

    def __repr__(self) -> str:
        return f"wanda({type(self.model).__name__}, ...)"


def wanda(model: nn.Module, batches: Iterable[Any], /, *, progress: Progress | None = None) -> Wanda:
    """The criterion ``|W_ij| * |X_j|``: entries that add little to the output of their layer go first.

    Use it with ``scope=fp.within(0)``, which ranks within an output row as in the paper, or with `NM`.

    Args:
        model: whose inputs are measured, in evaluation mode; it is copied (parameters are shared) and left alone.
        batches: an iterable of model inputs that can be read again: a tensor, a tuple of arguments or a mapping of
            keyword arguments each. They are streamed; only the norms are kept.
        progress: a wrapper of the iterable such as ``tqdm.tqdm``.

    Scores weights of Linear, Conv1d and Conv2d; a call of a convolution is the product of its kernel with unfolded
    inputs. The activations are those of the masked model; `layerwise` prunes layer after layer, so that later layers
    see what the pruned ones before them give. The params must be those of ``dict(model.named_parameters())``. Cost: one
    forward pass over the batches.

    References: Sun, Liu, Bair, Kolter 2023, arXiv:2306.11695.

    >>> model = torch.nn.Linear(2, 1)
    >>> criterion = fp.criteria.wanda(model, [torch.tensor([[3.0, 1.0], [4.0, 0.0]])])
    >>> criterion({"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.zeros(1)})["weight"]
    tensor([[5., 2.]])
    """
    return Wanda(skeleton(model), rereadable(batches), progress)
