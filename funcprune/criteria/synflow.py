"""SynFlow: keep the paths through the network, without data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad

from funcprune.criteria.additive import Additive
from funcprune.criteria.models import masked_params, skeleton
from funcprune.masking import functional
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class Synflow(Additive):
    """``|W| dR/d|W|``, R the sum of the outputs of the network of absolute values for an input of ones."""

    model: nn.Module
    shapes: tuple[tuple[int, ...], ...]

    def contributions(self, params: Params, masks: Masks | None, /) -> Scores:
        """The synaptic flow through each entry, float64; zero at biases and pruned entries."""
        values = {name: leaf.double().abs() for name, leaf in masked_params(params, masks).items()}
        values = {name: leaf * 0 if _is_bias(name) else leaf for name, leaf in values.items()}
        buffers = {name: _buffer(name, buffer) for name, buffer in self.model.named_buffers()}
        device = next(iter(values.values())).device if values else None
        ones = [torch.ones((1, *shape), dtype=torch.float64, device=device) for shape in self.shapes]
        call = functional(self.model)
        everything = dict.fromkeys(values)

        def flow(values: dict[str, Tensor]) -> Tensor:
            output, _ = call(values, everything, *ones, buffers=buffers)
            result: Tensor = output.sum()
            return result

        gradient = grad(flow)(values)
        return {name: value * gradient[name] for name, value in values.items()}

    def __repr__(self) -> str:
        return f"synflow({type(self.model).__name__}, {', '.join(map(str, self.shapes))})"


def synflow(model: nn.Module, /, *shapes: tuple[int, ...]) -> Synflow:
    """The criterion ``|W| dR/d|W|``: entries that carry the least of all paths from input to output go first.

    ``shapes`` are those of the model's inputs, without the batch: ``synflow(model, (1, 28, 28))``. ``R`` is the sum
    of the outputs for an input of ones when every weight is replaced by its absolute value; biases and running means
    are zero, BatchNorm is in evaluation mode, and all is float64, as are the scores. In a network of linear maps,
    ReLUs and pooling the scores of every layer sum to ``R``.

    Score again as entries go, or layers collapse: ``fp.iterate(fp.Pruner(synflow(...), sparsity=s, scope="global"))``.
    The params must be those of ``dict(model.named_parameters())``; the model is copied and left alone. A unit scores by
    the sum over it. Data-free. Cost: a forward and backward pass for one input in float64.

    References: Tanaka, Kunin, Yamins, Ganguli 2020, arXiv:2006.05467.

    >>> model = torch.nn.Linear(2, 1)
    >>> fp.criteria.synflow(model, (2,))({"weight": torch.tensor([[3.0, -1.0]]), "bias": torch.ones(1)})["weight"]
    tensor([[3., 1.]], dtype=torch.float64)
    """
    for shape in shapes:
        if not isinstance(shape, tuple | list):
            raise TypeError(f"synflow: found {shape!r}, expected the shapes of the inputs, such as (1, 28, 28)")
    if not shapes:
        raise ValueError("synflow: found no shape, expected those of the inputs, such as (1, 28, 28)")
    return Synflow(skeleton(model), tuple(map(tuple, shapes)))


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]


def _buffer(name: str, buffer: Tensor) -> Tensor:
    """A buffer in float64; a running mean is a bias, and zero."""
    if not buffer.is_floating_point():
        return buffer
    return torch.zeros_like(buffer, dtype=torch.float64) if name.endswith("running_mean") else buffer.double()
