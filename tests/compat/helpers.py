"""What the tests of the stateful world share: what a module looks like from outside."""

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune


def state_of(model):
    """Everything pruning may change: tensors by value and identity, order, hooks and their histories."""
    found = []
    for path, module in model.named_modules():
        parameters = [(name, id(p), None if p is None else snapshot(p)) for name, p in module._parameters.items()]
        buffers = [(name, id(b), snapshot(b)) for name, b in module._buffers.items()]
        hooks = [
            (key, id(hook), len(hook) if isinstance(hook, torch_prune.PruningContainer) else 1)
            for key, hook in module._forward_pre_hooks.items()
        ]
        others = [
            (name, id(value), snapshot(value) if isinstance(value, torch.Tensor) else None)
            for name, value in sorted(module.__dict__.items())
            if not name.startswith("_") or name == "__deepcopy__"
        ]
        found.append((path, parameters, buffers, hooks, others, list(module._load_state_dict_post_hooks)))
    return found


def snapshot(tensor):
    if tensor is None or nn.parameter.is_lazy(tensor):
        return repr(type(tensor))
    return tensor.dtype, tuple(tensor.shape), tensor.detach().flatten().tolist()


def bits(tensor):
    """The bits of a floating-point tensor, for comparisons that tell zeros of different signs apart."""
    return tensor.detach().contiguous().view(torch.int32 if tensor.dtype == torch.float32 else torch.int64)


class EveryOther(torch_prune.BasePruningMethod):
    """The custom method of the PyTorch tutorial, written against torch's own base class."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


class Raising(torch_prune.BasePruningMethod):
    """Fails after all checks have passed."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        raise ArithmeticError("no mask today")
