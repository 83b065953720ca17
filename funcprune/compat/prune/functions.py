"""The functions: one call prunes a tensor, or several, in place."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod as TorchMethod

from funcprune import masks as algebra
from funcprune.compat import slots
from funcprune.compat.prune import methods
from funcprune.compat.prune.base import check_scores, commit
from funcprune.criteria import magnitude
from funcprune.pruners import Pruner


def identity(module: nn.Module, name: str) -> nn.Module:
    """The module, its tensor ``name`` reparameterized with a mask of ones.

    >>> from funcprune.compat import prune
    >>> prune.identity(torch.nn.Linear(2, 3), "bias").bias_mask
    tensor([1., 1., 1.])
    """
    methods.Identity.apply(module, name)
    return module


def random_unstructured(module: nn.Module, name: str, amount: float | int) -> nn.Module:
    """The module, entries of its tensor ``name`` pruned at random.

    >>> from funcprune.compat import prune
    >>> int(prune.random_unstructured(torch.nn.Linear(2, 3), "weight", amount=1).weight_mask.sum())
    5
    """
    methods.RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: nn.Module, name: str, amount: float | int, importance_scores: Tensor | None = None
) -> nn.Module:
    """The module, the entries of its tensor ``name`` with the smallest magnitude (or scores) pruned.

    >>> from funcprune.compat import prune
    >>> layer = prune.l1_unstructured(torch.nn.Linear(2, 3), "weight", amount=0.2)
    >>> list(layer.state_dict())
    ['bias', 'weight_orig', 'weight_mask']
    """
    methods.L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: nn.Module, name: str, amount: float | int, dim: int) -> nn.Module:
    """The module, slices of its tensor ``name`` along ``dim`` pruned at random.

    >>> from funcprune.compat import prune
    >>> layer = prune.random_structured(torch.nn.Linear(5, 3), "weight", amount=3, dim=1)
    >>> int(layer.weight_mask.any(0).sum())
    2
    """
    methods.RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: nn.Module,
    name: str,
    amount: float | int,
    n: Any,
    dim: int,
    importance_scores: Tensor | None = None,
) -> nn.Module:
    """The module, the slices of its tensor ``name`` along ``dim`` with the smallest ``n``-norm pruned.

    >>> from funcprune.compat import prune
    >>> layer = prune.ln_structured(torch.nn.Conv2d(5, 3, 2), "weight", amount=0.4, n=float("-inf"), dim=1)
    >>> int(layer.weight_mask.any(0).sum()) // 4
    3
    """
    methods.LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: nn.Module, name: str, mask: Tensor) -> nn.Module:
    """The module, its tensor ``name`` pruned by ``mask``, zeros and ones of any dtype.

    >>> from funcprune.compat import prune
    >>> prune.custom_from_mask(torch.nn.Linear(5, 3), "bias", torch.tensor([0, 1, 0])).bias_mask
    tensor([0., 1., 0.])
    """
    methods.CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[nn.Module, str]],
    pruning_method: type[TorchMethod],
    importance_scores: dict[tuple[nn.Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prunes several tensors by one ranking of all their kept entries with ``pruning_method(**kwargs)``.

    A parameter that comes twice, or under two names, counts once. All or nothing: a call that raises changes no
    module.

    Raises:
        TypeError: ``parameters`` no iterable, ``importance_scores`` no dict, a method that is not unstructured.
        AssertionError: scores of another shape than their parameter's.

    >>> from funcprune.compat import prune
    >>> net = torch.nn.Sequential(torch.nn.Linear(10, 4), torch.nn.Linear(4, 1))
    >>> prune.global_unstructured([(net[0], "weight"), (net[1], "weight")], prune.L1Unstructured, amount=10)
    >>> sum(int((mask == 0).sum()) for mask in net.buffers())
    10
    """
    if not isinstance(parameters, Iterable):
        raise TypeError(f"parameters: found {type(parameters).__name__}, expected an iterable of (module, name)")
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError(f"importance_scores: found {type(scores).__name__}, expected a dict")
    entries = list(dict.fromkeys((module, name) for module, name in parameters))
    if not entries:
        raise ValueError("parameters: found none, expected at least one (module, name)")
    paths: dict[int, str] = {}  # one for each parameter, however often it is named
    params: dict[str, Tensor] = {}
    masks: dict[str, Tensor | None] = {}
    values: dict[str, Tensor] = {}
    targets = []
    for index, (module, name) in enumerate(entries):
        orig = slots.original(module, name)
        path = paths.setdefault(id(orig), f"{index}.{name}")
        params[path] = orig
        masks[path] = algebra.intersect(masks.get(path), slots.mask_of(module, name))
        values.setdefault(path, orig.detach())
        if (module, name) in scores:
            check_scores(scores[module, name], orig.shape, f"parameter {name} of {type(module).__name__}")
            values[path] = scores[module, name].detach()
        targets.append((module, name, path))
    method: Any = pruning_method(**kwargs)
    method._tensor_name = "temp"
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f"{pruning_method.__name__} has PRUNING_TYPE={method.PRUNING_TYPE!r}: only 'unstructured' prunes globally"
        )
    new = _ranked(method, params, masks, values)
    for module, _, _ in targets:
        slots.warn_if_not_called(module)
    for module, name, path in targets:
        commit(module, name, methods.CustomFromMask.kept_by(module, name), new[path])


def remove(module: nn.Module, name: str) -> nn.Module:
    """The module, the pruning of its tensor ``name`` permanent and its hook gone; ValueError where it is not pruned.

    >>> from funcprune.compat import prune
    >>> layer = prune.remove(prune.identity(torch.nn.Linear(2, 3), "weight"), "weight")
    >>> [name for name, _ in layer.named_parameters()]
    ['weight', 'bias']
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, TorchMethod) and hook._tensor_name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"{name!r} of {type(module).__name__} has to be pruned before pruning can be removed")


def is_pruned(module: nn.Module) -> bool:
    """Whether a module or any of its submodules has a pruning hook, ours or torch's.

    >>> from funcprune.compat import prune
    >>> prune.is_pruned(torch.nn.Linear(2, 3))
    False
    """
    return any(isinstance(hook, TorchMethod) for part in module.modules() for hook in part._forward_pre_hooks.values())


def _ranked(
    method: Any, params: dict[str, Tensor], masks: dict[str, Tensor | None], values: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The bool masks after ``method`` on the kept entries of all ``values``."""
    if type(method) is methods.L1Unstructured:
        pruner = Pruner(magnitude(), methods.budget(method.amount).amount, scope="global", where="*")
        pruned = pruner(values, masks)
        return {path: algebra.written(params[path], pruned[path]) for path in params}
    alive = {path: algebra.written(params[path], masks[path]) for path in params}
    vector = torch.cat([values[path][alive[path]] for path in params])
    found = method.compute_mask(vector, default_mask=torch.ones_like(vector))
    kept = slots.as_mask(found, vector.shape, f"the mask that {type(method).__name__} computed")
    parts = torch.split(kept, [int(torch.count_nonzero(mask)) for mask in alive.values()])
    return {path: mask.masked_scatter(mask, part) for (path, mask), part in zip(alive.items(), parts, strict=True)}
