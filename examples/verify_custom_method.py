"""A pruning method with a bug that no hand-written test found, and the minimal example that shows it.

The method prunes the entries of smallest magnitude by comparing with a threshold. On weights as they come out of an
initialisation it is right. Where magnitudes tie, as they do after quantisation, clipping or weight sharing,
``scores > kth`` drops every entry that equals the threshold, and more is pruned than was asked for.

    python examples/verify_custom_method.py
"""

import argparse

import torch
from torch import Tensor

from funcprune.compat import prune
from funcprune.testing import LawBrokenError, check_method


class ByThreshold(prune.BasePruningMethod):
    """Prunes the fraction ``amount`` of smallest magnitude."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Keeps what lies above the k-th smallest magnitude."""
        count = round(self.amount * t.numel())
        if count == 0:
            return default_mask.clone()
        scores = t.abs().flatten()
        kth = scores.kthvalue(count).values
        return default_mask * (scores > kth).reshape(t.shape)


class ByRank(ByThreshold):
    """The same, right: it ranks, and so prunes exactly ``count`` entries whatever the ties."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Keeps all but the first ``count`` in the order of magnitude."""
        count = round(self.amount * t.numel())
        mask = default_mask.clone()
        mask.view(-1)[t.abs().flatten().argsort(stable=True)[:count]] = 0
        return mask


def counterexample(method: type[prune.BasePruningMethod]) -> LawBrokenError | None:
    """The first law that a method breaks, with the minimal example."""
    try:
        check_method(method, amount=0.5)
    except LawBrokenError as error:
        return error
    return None


def main() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(20, 10)
    ByThreshold.apply(layer, "weight", amount=0.5)
    pruned = int((layer.weight == 0).sum())
    print(f"ByThreshold on fresh weights: {pruned} of {layer.weight.numel()} pruned, as asked")
    assert pruned == 100

    print("\ncheck_method(ByThreshold, amount=0.5):\n")
    found = counterexample(ByThreshold)
    print(found)
    assert found is not None
    assert found.law.name == "method_counts_are_exact"

    assert counterexample(ByRank) is None
    print("\ncheck_method(ByRank, amount=0.5): every law holds")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    main()
