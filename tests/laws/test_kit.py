"""The kit itself: what it loads, how it fails, what it takes for granted."""

import subprocess
import sys

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

import funcprune as fp
from funcprune import testing

FEW = hypothesis.settings(max_examples=10, database=None, deadline=None)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_funcprune_does_not_load_hypothesis() -> None:
    assert python("import sys, funcprune; print('hypothesis' in sys.modules)") == "False"


def test_without_hypothesis_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules['hypothesis'] = None
try:
    import funcprune.testing
except ImportError as error:
    print(error)
"""
    assert "pip install 'funcprune[testing]'" in python(code)


def test_a_failure_shows_the_law_and_the_minimal_example() -> None:
    def keeps_all_but_regrows(params, masks=None):
        return dict.fromkeys(params)

    with pytest.raises(testing.LawBrokenError) as caught:
        testing.check_pruner(
            keeps_all_but_regrows,
            params=testing.strategies.params(matrix=True, names=["weight"], nested=False),
        )
    message = str(caught.value)
    assert "breaks the law 'result_is_a_subset'" in message
    assert testing.laws.by_name("result_is_a_subset").statement in message
    assert "'weight': tensor([[1.]])" in message
    assert "'weight': tensor([[False]])" in message
    assert caught.value.law is testing.laws.by_name("result_is_a_subset")


def test_a_raising_subject_breaks_the_law() -> None:
    with pytest.raises(testing.LawBrokenError, match=r"Found: ZeroDivisionError"):
        testing.check_pruner(lambda params, masks=None: 1 / 0, settings=FEW)


def test_draws_from_the_global_generator_replay() -> None:
    seen: list[torch.Tensor] = []
    before = torch.get_rng_state()

    @hypothesis.settings(FEW)
    @hypothesis.given(st.just(None))
    def draw(_: None) -> None:
        seen.append(torch.rand(4))

    draw()
    draw()
    assert all(torch.equal(first, seen[0]) for first in seen)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failure_that_depends_on_the_global_generator_is_not_flaky() -> None:
    def prunes_at_random(params, masks=None):
        return {path: torch.rand(leaf.shape) > 0.5 for path, leaf in params.items()}

    with pytest.raises(testing.LawBrokenError):
        testing.check_pruner(prunes_at_random, traits=["-deterministic"])


def test_a_criterion_of_ones_own_is_checked_as_criterion_and_as_pruner() -> None:
    def squares(params, masks):
        return {path: leaf.detach().float() ** 2 for path, leaf in params.items()}

    def nan_where_zero(params, masks):
        return {path: leaf.detach() / leaf.detach().abs() for path, leaf in params.items()}

    testing.check_criterion(squares, settings=FEW)
    with pytest.raises(testing.LawBrokenError, match="finite_params_have_ranks"):
        testing.check_criterion(nan_where_zero)


def test_traits_widen_and_narrow() -> None:
    def by_value(params, masks):
        return {path: leaf.detach().clone() for path, leaf in params.items()}

    pruner = fp.Pruner(by_value, 0.5)
    testing.check_pruner(pruner, settings=FEW)
    with pytest.raises(testing.LawBrokenError, match="signs_are_irrelevant"):
        testing.check_pruner(pruner, traits=["magnitude"])
    with pytest.raises(ValueError, match="unknown trait 'magic'"):
        testing.check_pruner(pruner, traits=["magic"])


def test_params_of_a_model_may_be_given() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Linear(2, 2))
    params = dict(model.named_parameters())
    testing.check_pruner(fp.ln_structured(1, n=2, dim=0, where="0.weight"), params=st.just(params), settings=FEW)


@pytest.mark.parametrize("make", [lambda pruner: pruner, lambda pruner: fp.chain(fp.l1_unstructured(0.5), pruner)])
def test_pruners_that_hold_masks_are_bound_to_their_structure(make) -> None:
    params = {"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2)}
    pruner = make(fp.custom_from_mask({"a.weight": torch.eye(2).bool(), "a.bias": None}))
    assert "nested" not in testing.traits.of_pruner(pruner)
    testing.check_pruner(pruner, params=st.just(params), settings=FEW)


def test_every_needed_trait_is_documented_and_every_documented_one_needed() -> None:
    assert {trait for law in testing.laws.ALL for trait in law.needs} == testing.traits.TRAITS.keys()


def test_unknown_law() -> None:
    with pytest.raises(ValueError, match="unknown law 'gravity'"):
        testing.laws.by_name("gravity")
