"""The pruners of the field by their names."""

from funcprune import selectors
from funcprune.allocation import Scope
from funcprune.criteria import magnitude, random
from funcprune.pruners.pruner import Pruner
from funcprune.selectors import Where
from funcprune.structures import Slices


def l1_unstructured(
    amount: float | int | None = None,
    *,
    sparsity: float | None = None,
    scope: Scope = "leaf",
    where: Where = selectors.default,
) -> Pruner:
    """A `Pruner` of the entries of smallest magnitude.

    >>> fp.l1_unstructured(0.5)({"w": torch.tensor([[1.0, -4.0, 3.0, 2.0]])})
    {'w': tensor([[False,  True,  True, False]])}
    """
    return Pruner(magnitude(), amount, sparsity=sparsity, scope=scope, where=where)


def random_unstructured(
    amount: float | int | None = None,
    *,
    seed: int,
    sparsity: float | None = None,
    scope: Scope = "leaf",
    where: Where = selectors.default,
) -> Pruner:
    """A `Pruner` of entries at random; the masks of a leaf depend on ``seed`` and its path alone.

    >>> masks = fp.random_unstructured(3, seed=0)({"w": torch.zeros(2, 4)})
    >>> int(masks["w"].sum())
    5
    """
    return Pruner(random(seed), amount, sparsity=sparsity, scope=scope, where=where)


def ln_structured(
    amount: float | int | None = None,
    *,
    n: float,
    dim: int,
    sparsity: float | None = None,
    scope: Scope = "leaf",
    where: Where = selectors.default,
) -> Pruner:
    """A `Pruner` of the slices along ``dim`` of smallest ``n``-norm.

    In the global scope norms are compared as power means, see `structures.Slices`.

    >>> fp.ln_structured(1, n=2, dim=0)({"w": torch.tensor([[1.0, 1.0], [3.0, 0.0]])})
    {'w': tensor([[False, False],
            [ True,  True]])}
    """
    return Pruner(magnitude(), amount, sparsity=sparsity, structure=Slices(dim, n), scope=scope, where=where)


def random_structured(
    amount: float | int | None = None,
    *,
    dim: int,
    seed: int,
    sparsity: float | None = None,
    scope: Scope = "leaf",
    where: Where = selectors.default,
) -> Pruner:
    """A `Pruner` of slices along ``dim`` at random.

    >>> masks = fp.random_structured(0.5, dim=1, seed=0)({"w": torch.zeros(2, 4)})
    >>> int(masks["w"].sum())
    4
    """
    return Pruner(random(seed), amount, sparsity=sparsity, structure=Slices(dim), scope=scope, where=where)
