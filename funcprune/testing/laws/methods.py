"""Laws of pruning methods of the stateful world. The subject is a `Method`."""

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from funcprune import compat
from funcprune import masks as algebra
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same, untouched


class Method(NamedTuple):
    """A subclass of ``BasePruningMethod``, and the arguments it is made with."""

    method_class: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def make(self) -> Any:
        """A new instance."""
        return self.method_class(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        words = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.method_class.__name__}({', '.join(words)})"


@law("method", "compute_mask gives a mask of zeros and ones, in the shape of the tensor.")
def method_masks_are_binary(method: Method, case: Case) -> None:
    """A mask is 0 or 1."""
    weight = _weight(case)
    mask = method.make().compute_mask(weight, default_mask=torch.ones_like(weight))
    ensure(mask.shape == weight.shape, f"found shape {tuple(mask.shape)}, expected {tuple(weight.shape)}")
    ensure(((mask == 0) | (mask == 1)).all(), f"found mask {mask}")


@law("method", "compute_mask writes neither to the tensor nor to the default mask.")
def method_is_pure(method: Method, case: Case) -> None:
    """Inputs are as before."""
    weight = _weight(case)
    default = torch.ones_like(weight)
    with untouched(weight, default):
        method.make().compute_mask(weight, default_mask=default)


@law(
    "method", "A float amount prunes round(amount * entries) entries, an int that many, ties or not.", needs=["counted"]
)
def method_counts_are_exact(method: Method, case: Case) -> None:
    """Ties prune neither more nor less."""
    amount = method.kwargs["amount"]
    weight = _weight(case)
    expected = round(amount * weight.numel()) if isinstance(amount, float) else amount
    if expected > weight.numel():
        return
    mask = method.make().compute_mask(weight, default_mask=torch.ones_like(weight))
    gone = int((mask == 0).sum())
    ensure(gone == expected, f"pruned {gone} of {weight.numel()} entries, expected {expected}")


@law("method", "Pruning a module with the method, and applying it as a pure pruner, give the same masks.")
def method_is_the_pure_pruner(method: Method, case: Case) -> None:
    """``extract(apply(module)) = as_pruner(method)(params)``."""
    weight = _weight(case)
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight = nn.Parameter(weight)
    seed = case.draw(st.integers(0, 9), "seed of torch.manual_seed")  # for a method that draws
    torch.manual_seed(seed)
    expected = compat.as_pruner(method.method_class, *method.args, **method.kwargs)({"weight": weight})
    torch.manual_seed(seed)
    method.method_class.apply(module, "weight", *method.args, **method.kwargs)
    params, masks = compat.extract(module)
    ensure(
        algebra.equal(masks, expected), f"found {masks['weight']} in the module, {expected['weight']} from the pruner"
    )
    same({"weight": params["weight"].detach()}, {"weight": weight}, "the unpruned parameter")


def _weight(case: Case) -> Tensor:
    shape = case.draw(st.sampled_from([(1, 2), (2, 2), (3, 2), (2, 5)]), "shape")
    return case.draw(strategies.tensors(shape, finite=True, layouts=["contiguous"]), "weight")
