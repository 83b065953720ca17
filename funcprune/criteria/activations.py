"""What flows into the Linear and convolution layers of a model, as matrices that their weights multiply.

A layer is seen as ``groups`` independent products ``W X``: its weight as ``(groups, out / groups, columns)``, and its
input as ``(groups, samples, columns)``. The columns of a convolution are the places of its kernel times its input
channels, channels last.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from funcprune.criteria.gradients import Progress
from funcprune.criteria.models import called_with
from funcprune.masking import functional
from funcprune.trees import Masks, Params

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def weights(model: nn.Module, /) -> dict[str, list[nn.Module]]:
    """The layers that multiply by each weight, by its path; several where it is tied."""
    names = {id(parameter): path for path, parameter in model.named_parameters()}
    found: dict[str, list[nn.Module]] = {}
    for module in model.modules():
        if isinstance(module, LAYERS) and id(module.weight) in names:
            found.setdefault(names[id(module.weight)], []).append(module)
    return found


def stream(
    model: nn.Module,
    params: Params,
    masks: Masks,
    batches: Iterable[Any],
    paths: Collection[str],
    take: Callable[[str, Tensor], None],
    progress: Progress | None = None,
) -> None:
    """Calls ``take(path, columns)`` whenever the masked model multiplies the weight at one of ``paths`` by columns.

    Raises ValueError where a path is no weight of such a layer, or no call of it was seen, or there is no batch.
    """
    layers, seen = weights(model), set()
    call = functional(model)

    def hook(path: str) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            seen.add(path)
            take(path, columns(module, args[0] if args else kwargs["input"]))

        return see

    for path in paths:
        if path not in layers:
            raise ValueError(
                f"params at {path!r}: found no inputs for it, expected the weight of a Linear, Conv1d or Conv2d: "
                "exclude it with where="
            )
    handles = [
        layer.register_forward_pre_hook(hook(path), with_kwargs=True) for path in paths for layer in layers[path]
    ]
    found = False
    try:
        with torch.no_grad():
            for batch in batches if progress is None else progress(batches):
                found = True
                args, kwargs = called_with(batch)
                call(params, masks, *args, buffers=dict(model.named_buffers()), **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError("batches: found none, expected at least one")
    for path in paths:
        if path not in seen:
            raise ValueError(f"params at {path!r}: the batches never reach this layer: exclude it with where=")


def columns(layer: nn.Module, inputs: Tensor, /) -> Tensor:
    """The input of a layer as ``(groups, samples, columns)``."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1])
    inputs = inputs if inputs.ndim == layer.weight.ndim else inputs[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    ones = (1,) * (2 - len(layer.kernel_size))
    inputs = inputs if inputs.ndim == 4 else inputs[:, :, None]
    kernel, dilation, stride = (ones + tuple(size) for size in (layer.kernel_size, layer.dilation, layer.stride))
    found = unfold(inputs, kernel, dilation=dilation, stride=stride)
    channels, places = layer.weight.shape[1], layer.weight[0, 0].numel()
    split = found.reshape(len(found), layer.groups, channels, places, -1)
    return split.permute(1, 0, 4, 3, 2).reshape(layer.groups, -1, places * channels)


def matrix(layer: nn.Module, weight: Tensor, /) -> Tensor:
    """The weight of a layer, or its mask, as ``(groups, out / groups, columns)``."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return weight[None]
    return weight.flatten(2).transpose(1, 2).reshape(layer.groups, len(weight) // layer.groups, -1)


def weight_of(matrix: Tensor, shape: torch.Size, /) -> Tensor:
    """What `matrix` made of a weight of this shape, back."""
    if len(shape) == 2:
        return matrix[0]
    return matrix.reshape(shape[0], -1, shape[1]).transpose(1, 2).reshape(shape)
