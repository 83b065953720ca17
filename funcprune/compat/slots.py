"""One pruned tensor of one module: how the stateful world keeps it, put in place and taken away again.

A tensor ``weight`` pruned in place is a parameter ``weight_orig`` (the object that was ``weight``), a buffer
``weight_mask`` of its dtype, a forward pre-hook, and the attribute ``weight``: the product of the two. This file is
the only one that writes them, and it writes only what has been checked.
"""

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod as TorchMethod

from funcprune.masking import selected


class Slot(NamedTuple):
    """A parameter where a module holds it, under its unpruned name."""

    path: str
    module: nn.Module
    name: str
    parameter: nn.Parameter

    @property
    def hook(self) -> Any:
        """The pruning hook of the tensor; None: it is not pruned."""
        return hooks(self.module).get(self.name)

    @property
    def mask(self) -> Tensor | None:
        """The bool mask of the tensor; None: it is not pruned."""
        return mask_of(self.module, self.name)


def walk(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[Slot]:
    """Every slot of a model, tied ones too, in the order of the unpruned model's parameters.

    Those of a module that has several names come once, or without ``remove_duplicate`` under each of them.
    """
    for prefix, module in model.named_modules(remove_duplicate=remove_duplicate):
        pruned = hooks(module)
        for name in parameter_order(module):
            parameter = module._parameters[f"{name}_orig" if name in pruned else name]
            if parameter is not None:
                yield Slot(f"{prefix}.{name}" if prefix else name, module, name, parameter)


def hooks(module: nn.Module) -> dict[str, Any]:
    """The pruning hooks of a module, ours and torch's, by the name of their tensor."""
    found: dict[str, Any] = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, TorchMethod):
            if hook._tensor_name in found:
                raise AssertionError(
                    f"{hook._tensor_name!r} of {type(module).__name__} has two pruning hooks, expected one: put both "
                    "methods in one PruningContainer"
                )
            found[hook._tensor_name] = hook
    return found


def original(module: nn.Module, name: str) -> nn.Parameter:
    """The parameter behind a tensor that is pruned or can be pruned.

    Raises AttributeError, TypeError or KeyError, saying why, where there is none.
    """
    if name in hooks(module):
        return getattr(module, f"{name}_orig")  # type: ignore[no-any-return]
    found, where = getattr(module, name), f"{name!r} of {type(module).__name__}"
    if found is None:
        raise TypeError(f"{where}: found None, expected a parameter: this layer was made without it, leave it out")
    if is_lazy(found):
        raise ValueError(f"{where}: found a lazy parameter without a shape: run one forward pass before pruning")
    if isinstance(module, parametrize.ParametrizationList) or parametrize.is_parametrized(module, name):
        raise TypeError(
            f"{where}: found a parametrized tensor, expected a plain parameter: remove the parametrization, or mask "
            "it as data with fp.functional"
        )
    if not isinstance(found, nn.Parameter):
        raise TypeError(f"{where}: found {type(found).__name__}, expected a torch.nn.Parameter")
    for suffix in ("_orig", "_mask"):
        if hasattr(module, name + suffix):
            raise KeyError(f"{where}: the attribute {name + suffix!r}, which pruning needs, exists already: rename it")
    return found


def mask_of(module: nn.Module, name: str) -> Tensor | None:
    """The bool mask of a tensor; None: it is not pruned."""
    if name not in hooks(module):
        return None
    shape = getattr(module, f"{name}_orig").shape  # a method of the user's own may have made a mask that broadcasts
    return as_mask(getattr(module, f"{name}_mask"), shape, f"{name}_mask of {type(module).__name__}")


def as_mask(found: Any, shape: torch.Size, where: str) -> Tensor:
    """A new bool mask from one of any dtype; errors where it is no tensor, not zeros and ones, or does not fit."""
    if not isinstance(found, Tensor):
        raise TypeError(f"{where}: found {type(found).__name__}, expected a mask, a tensor of zeros and ones")
    mask = found.detach() == 1
    if not found.is_meta and found.dtype != torch.bool and not (mask | (found == 0)).all():
        raise ValueError(f"{where}: found values other than 0 and 1, expected a mask of zeros and ones")
    return torch.broadcast_to(mask, shape)


def warn_if_not_called(module: nn.Module) -> None:
    """Warns where hooks of a module never run: attention reads the weights of its output projection, uncalled."""
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        warnings.warn(
            "MultiheadAttention never calls its out_proj, so a pruning hook there does not run: the masked weight is "
            "not refreshed between steps. Use funcprune.compat.install on the attention or the whole model instead",
            UserWarning,
            stacklevel=4,
        )


def attach(module: nn.Module, name: str, hook: Any, mask: Tensor) -> None:
    """Makes ``hook`` the pruning hook of a tensor and the bool ``mask`` its mask; the tensor passed `original`."""
    orig = original(module, name)
    order = parameter_order(module)
    if name in hooks(module):
        _drop_hook(module, name)
    else:
        module.register_parameter(f"{name}_orig", orig)
        del module._parameters[name]
    module.register_buffer(f"{name}_mask", torch.empty_like(orig, requires_grad=False).copy_(mask))
    if not isinstance(module.__dict__.get("__deepcopy__"), _Copier):
        module.__dict__["__deepcopy__"] = _Copier(module, order)
    if _refresh_after_load not in module._load_state_dict_post_hooks.values():
        module.register_load_state_dict_post_hook(_refresh_after_load)  # type: ignore[no-untyped-call]
    try:
        with torch.enable_grad():
            setattr(module, name, hook.apply_mask(module))
    except Exception:  # a method of the user's own on a tensor that was dense
        detach(module, name)
        raise
    module.register_forward_pre_hook(hook)


def baked(module: nn.Module, name: str, hook: Any) -> Tensor:
    """The values of a pruned tensor with exact +0.0 where its mask prunes."""
    with torch.no_grad():
        values = hook.apply_mask(module)
        return selected(
            values, as_mask(getattr(module, f"{name}_mask"), values.shape, f"{name}_mask of {type(module).__name__}")
        )


def detach(module: nn.Module, name: str, values: Tensor | None = None) -> None:
    """Makes a pruned tensor a parameter again, the same object at its first position, with new ``values`` if given.

    Its hook stays for the caller to delete.
    """
    order = parameter_order(module, name)
    orig: Any = module._parameters.pop(f"{name}_orig")
    if values is not None:
        orig.data = values
    del module._buffers[f"{name}_mask"]
    if name in module.__dict__:
        delattr(module, name)
    setattr(module, name, orig)
    still = hooks(module).keys() - {name}
    for other in order:
        key = f"{other}_orig" if other in still else other
        module._parameters[key] = module._parameters.pop(key)
    if not still:
        if isinstance(module.__dict__.get("__deepcopy__"), _Copier):
            del module.__dict__["__deepcopy__"]
        _delete(module._load_state_dict_post_hooks, _refresh_after_load)


def strip(module: nn.Module, name: str, values: Tensor | None = None) -> None:
    """`detach`, and the hook is gone too."""
    detach(module, name, values)
    _drop_hook(module, name)


def refresh(module: nn.Module) -> None:
    """Makes every pruned tensor of a module the product of its parameter and mask as they are now."""
    with torch.enable_grad():
        for name, hook in hooks(module).items():
            setattr(module, name, hook.apply_mask(module))


def parameter_order(module: nn.Module, *pruned: str) -> list[str]:
    """The names of a module's parameters in the order they had before any was pruned, as far as it is known.

    Pruned are those with a hook, and ``pruned`` ones.
    """
    names = {f"{name}_orig": name for name in (*hooks(module), *pruned)}
    found = [names.get(key, key) for key in module._parameters]
    copier = module.__dict__.get("__deepcopy__")
    if not isinstance(copier, _Copier):
        return found
    rank = {name: index for index, name in enumerate(copier.order)}
    return sorted(found, key=lambda name: rank.get(name, len(rank)))


def copy_memo(module: nn.Module) -> dict[int, Tensor]:
    """A memo for `copy.deepcopy`: stand-ins for the products, which are no leaves and cannot be copied."""
    products = [getattr(module, name) for name in hooks(module)]
    return {id(product): product.detach() for product in products}


class _Copier:
    """What `copy.deepcopy` finds on a pruned module, as an attribute of that instance, and calls.

    It also remembers the order of the module's parameters. (A shallow copy shares it, so that a deep copy of a shallow
    copy is one of the first module.)
    """

    def __init__(self, module: nn.Module, order: list[str]) -> None:
        self.module = module
        self.order = order

    def __call__(self, memo: dict[int, Any]) -> nn.Module:
        memo |= copy_memo(self.module)
        del self.module.__dict__["__deepcopy__"]
        try:
            copied = copy.deepcopy(self.module, memo)
        finally:
            self.module.__dict__["__deepcopy__"] = self
        copied.__dict__["__deepcopy__"] = _Copier(copied, list(self.order))
        refresh(copied)
        return copied


def _refresh_after_load(module: nn.Module, _: Any) -> None:
    refresh(module)


def _drop_hook(module: nn.Module, name: str) -> None:
    _delete(module._forward_pre_hooks, hooks(module)[name])


def _delete(registry: dict[int, Any], hook: Any) -> None:
    for key in [key for key, value in registry.items() if value is hook]:
        del registry[key]
