"""The pruning methods. Each says how many units go and how they score; the core ranks them."""

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from funcprune import masks as algebra
from funcprune.allocation import Budget
from funcprune.compat.prune.base import BasePruningMethod, check_dim
from funcprune.criteria import magnitude
from funcprune.pruners import Pruner
from funcprune.structures import Slices


def budget(amount: Any) -> Budget:
    """The budget of an amount; TypeError where it is no number, ValueError where it is out of range or NaN."""
    if not isinstance(amount, Real):
        raise TypeError(f"amount={amount!r}: found {type(amount).__name__}, expected an int or a float")
    return Budget(int(amount) if isinstance(amount, Integral) else float(amount))


class Identity(BasePruningMethod):
    """Prunes nothing: the tensor gets a mask of ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """``default_mask`` itself."""
        return default_mask

    @classmethod
    def apply(cls, module: nn.Module, name: str) -> Any:  # type: ignore[override]
        """See `BasePruningMethod.apply`."""
        return super().apply(module, name)


class _Ranked(BasePruningMethod):
    """Prunes ``amount`` of the units it is shown: a fraction of them, or an int, that many."""

    amount: float | int

    def _count(self, units: int) -> int:
        return budget(self.amount).drops(units, units, repr(self._tensor_name or "the tensor"))

    def _kept(self, scores: Tensor, count: int) -> Tensor:
        """Which units stay, as bools, when the ``count`` lowest of all ``scores`` go."""
        path = self._tensor_name or "tensor"
        kept = Pruner(magnitude(), count, where="*")({path: scores}, scores={path: scores})[path]
        return algebra.written(scores, kept)


class RandomUnstructured(_Ranked):
    """Prunes entries at random, drawn from the global generator."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float | int) -> None:
        budget(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask, in the dtype of ``default_mask``. Nothing is drawn where nothing goes."""
        count = self._count(t.numel())
        if count == 0:
            return default_mask.clone()
        return default_mask * self._kept(-torch.rand_like(t), count).to(default_mask.dtype)

    @classmethod
    def apply(cls, module: nn.Module, name: str, amount: float | int) -> Any:  # type: ignore[override]
        """See `BasePruningMethod.apply`."""
        return super().apply(module, name, amount=amount)


class L1Unstructured(_Ranked):
    """Prunes the entries of smallest magnitude."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float | int) -> None:
        budget(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask, in the dtype of ``default_mask``."""
        scores = t.detach().abs()
        scores = scores if scores.is_floating_point() else scores.double()
        return default_mask * self._kept(scores, self._count(t.numel())).to(default_mask.dtype)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, amount: float | int, importance_scores: Tensor | None = None
    ) -> Any:
        """See `BasePruningMethod.apply`."""
        return super().apply(module, name, amount=amount, importance_scores=importance_scores)


class RandomStructured(_Ranked):
    """Prunes slices along ``dim`` at random, drawn from the global generator."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float | int, dim: int = -1) -> None:
        budget(amount)
        self.amount = amount
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask, in the dtype of ``default_mask``. Nothing is drawn where nothing goes."""
        _check_structured(t, self.dim)
        units = t.shape[self.dim]
        count = self._count(units)
        if count == 0:
            return default_mask.clone()
        return _without_slices(default_mask, self.dim, self._kept(torch.rand(units).to(t.device), count))

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: nn.Module, name: str, amount: float | int, dim: int = -1
    ) -> Any:
        """See `BasePruningMethod.apply`."""
        return super().apply(module, name, amount=amount, dim=dim)


class LnStructured(_Ranked):
    """Prunes the slices along ``dim`` of smallest ``n``-norm; ``n`` is what `torch.norm` takes for ``p``."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float | int, n: Any, dim: int = -1) -> None:
        budget(amount)
        self.amount = amount
        self.n = n
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask, in the dtype of ``default_mask``."""
        _check_structured(t, self.dim)
        count = self._count(t.shape[self.dim])
        others = [dim for dim in range(t.dim()) if dim != self.dim % t.dim()]
        norms: Tensor = torch.norm(t.detach(), p=self.n, dim=others)
        return _without_slices(default_mask, self.dim, self._kept(norms, count))

    @classmethod
    def apply(  # type: ignore[override]
        cls,
        module: nn.Module,
        name: str,
        amount: float | int,
        n: Any,
        dim: int,
        importance_scores: Tensor | None = None,
    ) -> Any:
        """See `BasePruningMethod.apply`."""
        return super().apply(module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores)


class CustomFromMask(BasePruningMethod):
    """Prunes what a given mask prunes."""

    PRUNING_TYPE = "global"
    _buffers: dict[str, Tensor | None] | None = None

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    @classmethod
    def kept_by(cls, module: nn.Module, name: str) -> "CustomFromMask":
        """A step of the history whose mask is nowhere but in the module's buffer."""
        method = cls.__new__(cls)
        method._tensor_name = name
        method._buffers = module._buffers
        return method

    @property
    def mask(self) -> Any:
        """The mask that was passed in; of a step that holds none, the module's mask as it is now."""
        return self._mask if self._buffers is None else self._buffers[f"{self._tensor_name}_mask"]

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        self._mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The intersection, in the dtype of ``default_mask``; AssertionError for a mask of another shape."""
        if default_mask.shape != self.mask.shape:
            raise AssertionError(f"mask: found shape {tuple(self.mask.shape)}, expected {tuple(default_mask.shape)}")
        mask: Tensor = self.mask.to(default_mask.dtype)
        return default_mask * mask

    @classmethod
    def apply(cls, module: nn.Module, name: str, mask: Tensor) -> Any:  # type: ignore[override]
        """See `BasePruningMethod.apply`."""
        return super().apply(module, name, mask=mask)


def _check_structured(t: Tensor, dim: int) -> None:
    if t.dim() <= 1:
        raise ValueError(f"structured pruning needs two or more dimensions, found a tensor of shape {tuple(t.shape)}")
    check_dim(t, dim)


def _without_slices(mask: Tensor, dim: int, kept: Tensor) -> Tensor:
    return mask * Slices(dim).expand(kept, mask.shape).to(mask.dtype)
