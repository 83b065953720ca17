"""What a pruning method is, how methods compose, and how one is applied to a tensor of a module."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod as TorchMethod
from torch.nn.utils.prune import PruningContainer as TorchContainer

from funcprune.compat import slots
from funcprune.masking import selected
from funcprune.structures import Slices


class BasePruningMethod(TorchMethod):
    """The base of pruning methods: subclass it, set ``PRUNING_TYPE``, define ``compute_mask``.

    ``PRUNING_TYPE`` says what a method sees when a tensor is pruned again: ``"unstructured"``, the kept entries as a
    vector; ``"structured"``, the slices along ``self.dim`` that have a kept entry; ``"global"``, all of it.
    """

    PRUNING_TYPE: str
    _tensor_name: str = None  # type: ignore[assignment]

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        """The forward pre-hook: makes the tensor the product of parameter and mask."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask for scores ``t``, of their shape: zeros and ones, zero where ``default_mask`` is."""

    def apply_mask(self, module: nn.Module) -> Tensor:
        """The parameter times the mask. Raises AssertionError where the method was not applied to a tensor."""
        if self._tensor_name is None:
            raise AssertionError(f"{type(module).__name__} has to be pruned first: use {type(self).__name__}.apply")
        orig: Tensor = getattr(module, f"{self._tensor_name}_orig")
        mask: Tensor = getattr(module, f"{self._tensor_name}_mask")
        return mask.to(dtype=orig.dtype) * orig

    @classmethod
    def apply(
        cls, module: nn.Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """The pruning hook of a tensor after pruning it with ``cls(*args, **kwargs)``.

        That is the method itself, or the `PruningContainer` of all methods so far where the tensor was pruned before.
        A tensor is ranked by ``importance_scores``, or by its values as they are now. All or nothing: a call that
        raises leaves the module as it was.

        Raises:
            AssertionError: scores of another shape.
            AttributeError, KeyError, TypeError, ValueError: no parameter that can be pruned; errors of the method.
        """
        slots.hooks(module)  # raises where two hooks prune one tensor
        method = cls(*args, **kwargs)
        method._tensor_name = name
        orig, mask = slots.original(module, name), slots.mask_of(module, name)
        check_scores(importance_scores, orig.shape, f"parameter {name} of {type(module).__name__}")
        new = next_mask(method, orig, mask, importance_scores)
        slots.warn_if_not_called(module)
        return commit(module, name, method, new)

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """The tensor ``t`` with the lowest entries zeroed; AssertionError for scores of another shape."""
        check_scores(importance_scores, t.shape, "tensor t")
        scores = t if importance_scores is None else importance_scores
        return t * self.compute_mask(scores, default_mask=torch.ones_like(t) if default_mask is None else default_mask)

    def remove(self, module: nn.Module) -> None:
        """Makes the pruning permanent: exact zeros, the same parameter object at its first position.

        The hook stays; the function ``remove`` deletes it too.
        """
        slots.detach(module, self._tensor_name, slots.baked(module, self._tensor_name, self))


class PruningContainer(BasePruningMethod, TorchContainer):
    """The methods applied to one tensor, in their order.

    >>> from funcprune.compat import prune
    >>> layer = prune.l1_unstructured(torch.nn.Linear(2, 2), "weight", 1)
    >>> prune.PruningContainer(*layer._forward_pre_hooks.values())[0].amount
    1
    """

    def __init__(self, *args: TorchMethod) -> None:
        self._pruning_methods: tuple[Any, ...] = ()
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: TorchMethod | None) -> None:
        """Appends a method; the first one names the tensor.

        Raises TypeError where it is none, ValueError where it acts on another tensor.
        """
        if not (method is None or isinstance(method, TorchMethod)):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method is not None and self._tensor_name is None:
            self._tensor_name = method._tensor_name
        if method is not None and method._tensor_name != self._tensor_name:
            raise ValueError(
                f"this PruningContainer acts on the parameter {self._tensor_name!r}, found a method that acts on "
                f"{method._tensor_name!r}"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[TorchMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: Any) -> Any:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask after the latest method, in the dtype of ``t``; arguments are not changed."""
        return compose(self._pruning_methods[-1], t, default_mask)


def compose(method: Any, t: Tensor, mask: Tensor) -> Tensor:
    """The mask after ``method`` on top of ``mask``, in the dtype of ``t``: the method sees what its type says.

    Raises ValueError for an unknown ``PRUNING_TYPE``; AttributeError and IndexError for a structured method without
    ``dim``, or with one that ``t`` has not.
    """
    part: Any
    new = mask.to(t.dtype, copy=True)
    kind = method.PRUNING_TYPE
    if kind == "unstructured":
        kept = mask == 1
        shown = t.masked_select(kept)  # this and its inverse take less than half the time of indexing
        found = method.compute_mask(shown, default_mask=torch.ones_like(shown, dtype=mask.dtype))
        return new.masked_scatter_(kept, found.to(new.dtype).expand_as(shown))
    if kind == "structured":
        if not hasattr(method, "dim"):
            raise AttributeError(f"{type(method).__name__} is structured: expected an attribute `dim`")
        check_dim(t, method.dim)
        # a vector is shown as one slice, with a dimension before its own, as torch does
        alive = Slices(method.dim).alive(t.shape, mask != 0) if t.dim() > 1 else (mask != 0).any()
        part = (slice(None),) * (method.dim % t.dim()) + (alive,)
    elif kind == "global":
        part = (slice(None),) * t.dim()
    else:
        raise ValueError(f"PRUNING_TYPE={kind!r}: expected 'unstructured', 'structured' or 'global'")
    new[part] = method.compute_mask(t[part], default_mask=mask[part].clone()).to(new.dtype)
    return new


def next_mask(method: Any, orig: Tensor, mask: Tensor | None, importance_scores: Tensor | None = None) -> Tensor:
    """The bool mask after ``method`` on a tensor with the bool ``mask`` so far, None: not pruned yet."""
    before = torch.ones_like(orig, requires_grad=False, memory_format=torch.contiguous_format)
    if mask is None:
        scores = orig if importance_scores is None else importance_scores
        new = method.compute_mask(scores, default_mask=before)
    else:
        before.copy_(mask)
        scores = selected(orig.detach(), mask) if importance_scores is None else importance_scores
        new = compose(method, scores, before)
    return slots.as_mask(new, orig.shape, f"the mask that {type(method).__name__} computed")


def commit(module: nn.Module, name: str, method: TorchMethod, mask: Tensor) -> Any:
    """The pruning hook of a tensor, with ``method`` added to its history and the bool ``mask`` in its buffer."""
    previous = slots.hooks(module).get(name)
    hook: Any = method
    if previous is not None:
        ours = isinstance(previous, PruningContainer)
        history = previous if isinstance(previous, TorchContainer) else (previous,)
        hook = previous if ours else PruningContainer(*history)
        hook.add_pruning_method(method)
    slots.attach(module, name, hook, mask)
    return hook


def check_scores(scores: Tensor | None, shape: torch.Size, where: str) -> None:
    """Raises AssertionError where importance scores have not the shape of what they score."""
    if scores is not None and scores.shape != shape:
        raise AssertionError(
            f"importance_scores of {where}: found shape {tuple(scores.shape)}, expected {tuple(shape)}"
        )


def check_dim(t: Tensor, dim: int) -> None:
    """Raises IndexError where ``t`` has no dimension ``dim``."""
    if not -t.dim() <= dim < t.dim():
        raise IndexError(f"dim={dim}: a tensor of shape {tuple(t.shape)} has no such dimension")
