"""Selectors: what each selects, and how they combine."""

from typing import Any

import pytest
import torch
from torch import nn

import funcprune as fp
from funcprune.selectors import default, resolve

LEAVES = {
    "conv1.weight": torch.zeros(2, 1, 3, 3),
    "conv1.bias": torch.zeros(2),
    "fc1.weight": torch.zeros(2, 2),
    "fc1.bias": torch.zeros(2),
    "steps": torch.zeros(2, 2, dtype=torch.int64),
}


@pytest.mark.parametrize(
    ("where", "selected"),
    [
        (default, ["conv1.weight", "fc1.weight"]),
        ("*.weight", ["conv1.weight", "fc1.weight"]),
        ("conv*", ["conv1.weight", "conv1.bias"]),
        ("CONV*|fc1.weight", None),
        ("fc1.weight", ["fc1.weight"]),
        ("fc?.[bw]*", ["fc1.weight", "fc1.bias"]),
        (["*.bias", "steps"], ["conv1.bias", "fc1.bias", "steps"]),
        (("fc1.bias", "conv1.bias"), ["conv1.bias", "fc1.bias"]),
        (fp.regex(r"(conv|fc)\d\.weight"), ["conv1.weight", "fc1.weight"]),
        (fp.regex("conv"), None),
        (fp.ndim(min=2), ["conv1.weight", "fc1.weight", "steps"]),
        (fp.ndim(max=1), ["conv1.bias", "fc1.bias"]),
        (fp.ndim(2, 2), ["fc1.weight", "steps"]),
        (lambda path, leaf: leaf.numel() == 4, ["fc1.weight", "steps"]),
        (~fp.glob("*.bias") & default, ["conv1.weight", "fc1.weight"]),
        (fp.glob("nothing") | "steps", ["steps"]),
        ("steps" | fp.glob("nothing"), ["steps"]),
        ("fc*" & fp.ndim(max=1), ["fc1.bias"]),
        ([["steps"], fp.regex("fc1.*") & "*.bias"], ["fc1.bias", "steps"]),
        (["*.bias", ["nothing"]], None),
        (fp.glob("fc*") & "conv*", None),
    ],
    ids=lambda value: repr(value) if not callable(value) else "predicate",
)
def test_selection(where: Any, selected: list[str] | None) -> None:
    if selected is None:
        with pytest.raises(ValueError, match="matches none of the 5 leaves"):
            resolve(where, LEAVES)
    else:
        assert resolve(where, LEAVES) == selected


def test_a_near_miss_is_pointed_out() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'fc1\.weight'"):
        resolve("fc1.weigth", LEAVES)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.decoder = nn.Linear(2, 2, bias=False)
        self.decoder.weight = self.encoder.weight
        self.shared = nn.ModuleList([nn.Conv1d(1, 1, 1)] * 2)


def test_of_type_goes_by_the_names_of_named_parameters() -> None:
    """C3: a tied weight is in named_parameters under its first name only."""
    model = Tied()
    params = dict(model.named_parameters())
    assert resolve(fp.of_type(model, nn.Linear, "weight"), params) == ["encoder.weight"]
    assert resolve(fp.of_type(model, nn.Conv1d), params) == ["shared.0.weight", "shared.0.bias"]
    assert resolve(fp.of_type(model, (nn.Linear, nn.Conv1d), "bias"), params) == ["encoder.bias", "shared.0.bias"]
    assert repr(fp.of_type(model, (nn.Linear, nn.Conv1d), "bias")) == "of_type(Tied, Linear | Conv1d, 'bias')"


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.transposed = self.weight


def test_of_type_finds_a_tied_parameter_by_either_of_its_names() -> None:
    """The second name of a parameter that one module holds twice was not found."""
    model = Twice()
    assert resolve(fp.of_type(model, Twice, "transposed"), dict(model.named_parameters())) == ["weight"]
