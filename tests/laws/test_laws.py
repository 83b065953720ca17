"""Every law of the kit, of everything in the library that it applies to."""

import io
import operator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as st

import funcprune as fp
from funcprune import pruners
from funcprune.testing import applicable, check_method, laws, run, strategies, traits


def through_a_file(masks: Any) -> Any:
    file = io.BytesIO()
    torch.save(masks, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Subject(NamedTuple):
    """What is judged: a value or a strategy of values, of which kinds, with which traits, on which trees."""

    value: Any
    kinds: tuple[str, ...]
    traits: frozenset[str] = frozenset()
    trees: Any = None


MATRICES = strategies.params(matrix=True)
FIXED = {"weight": torch.tensor([[1.0, -2.0], [0.5, 0.5]]), "layers.0.weight": torch.ones(3), "bias": torch.zeros(())}
OF_FAMILY = {
    "magnitude": fp.l1_unstructured(0.5),
    "structured": fp.ln_structured(0.5, n=2, dim=0),
    "random": fp.random_unstructured(0.5, seed=0),
    "random_structured": fp.random_structured(0.5, dim=0, seed=0),
    "identity": fp.identity(),
    "chain": fp.chain(fp.l1_unstructured(0.5)),
}

SUBJECTS = {
    "funcprune.masks": Subject(fp.masks, ("algebra",)),
    "funcprune": Subject(fp, ("masking",)),
    "funcprune.pruners": Subject(pruners, ("combinators",)),
    "structures": Subject(strategies.structures(), ("structure",)),
    "selectors": Subject(
        SimpleNamespace(
            or_=operator.or_, and_=operator.and_, invert=operator.invert, resolve=fp.selectors.resolve, __name__="where"
        ),
        ("selectors",),
    ),
    "criteria.magnitude": Subject(
        fp.criteria.magnitude(), ("criterion",), traits.of_criterion(fp.criteria.magnitude()), MATRICES
    ),
    "criteria.random": Subject(
        st.builds(fp.criteria.random, st.integers(0, 9)),
        ("criterion",),
        traits.of_criterion(fp.criteria.random(0)),
        MATRICES,
    ),
    "funcprune.schedules": Subject(fp.schedules, ("schedules",)),
    "funcprune.training": Subject(fp.training, ("training",)),
    "funcprune.compat": Subject(fp.compat, ("adapter",)),
    "torch.save": Subject(through_a_file, ("files",)),
    **{
        f"pruners: {family}": Subject(
            # every scope is drawn, and where leaves are ranked together, they depend on each other
            strategies.pruners(family),
            ("pruner",),
            traits.of_pruner(example) - {"leaf_local"},
            MATRICES,
        )
        for family, example in OF_FAMILY.items()
    },
    "pruners: custom_from_mask": Subject(
        fp.custom_from_mask({**dict.fromkeys(FIXED), "weight": torch.eye(2).bool()}),
        ("pruner",),
        frozenset({"deterministic", "picklable"}),
        st.just(FIXED),
    ),
    **{
        f"call: {name}": Subject(call, ("call",))
        for name, call in {
            "apply": fp.apply,
            "bake": fp.bake,
            "project_": fp.project_,
            "masks.check": fp.masks.check,
            "masks.invert": fp.masks.invert,
            "masks.counts": fp.masks.counts,
            "summary": fp.summary,
            "l1_unstructured": fp.l1_unstructured(0.5),
            "random_structured": fp.random_structured(0.5, dim=0, seed=0),
            "identity": fp.identity(),
        }.items()
    },
    "l1_unstructured": Subject(fp.l1_unstructured, ("constructor",)),
    "random_unstructured": Subject(
        lambda *args, **kwargs: fp.random_unstructured(*args, seed=0, **kwargs), ("constructor",)
    ),
    "ln_structured": Subject(lambda *args, **kwargs: fp.ln_structured(*args, n=2, dim=0, **kwargs), ("constructor",)),
    "random_structured": Subject(
        lambda *args, **kwargs: fp.random_structured(*args, dim=0, seed=0, **kwargs), ("constructor",)
    ),
}

JUDGEMENTS = {
    f"{law.name}-{name}": (law, subject)
    for name, subject in SUBJECTS.items()
    for law in applicable(subject.traits, *subject.kinds)
}


@pytest.mark.parametrize("judgement", JUDGEMENTS)
def test_law(judgement: str) -> None:
    law, subject = JUDGEMENTS[judgement]
    run(law, subject.value, trees=subject.trees)


@pytest.mark.parametrize("family", ["magnitude", "structured", "random", "random_structured"])
def test_leaves_are_independent_at_leaf_scope(family: str) -> None:
    assert "leaf_local" in traits.of_pruner(OF_FAMILY[family])
    run(laws.by_name("leaves_are_independent"), OF_FAMILY[family], trees=MATRICES)


METHODS = {
    "L1Unstructured": ({"amount": 0.5}, ()),
    "RandomUnstructured": ({"amount": 0.5}, ("-deterministic",)),
    "LnStructured": ({"amount": 0.5, "n": 2, "dim": 0}, ()),
    "RandomStructured": ({"amount": 0.5, "dim": 0}, ("-deterministic",)),
    "Identity": ({}, ()),
}


@pytest.mark.parametrize("home", [fp.compat.prune, torch.nn.utils.prune], ids=["funcprune", "torch"])
@pytest.mark.parametrize("name", METHODS)
def test_methods(home: Any, name: str) -> None:
    kwargs, known = METHODS[name]
    check_method(getattr(home, name), traits=known, **kwargs)


def test_every_law_is_asked_of_something_in_the_library() -> None:
    asked = {law.name for law, _ in JUDGEMENTS.values()}
    methods = {law.name for law in laws.of("method")}
    assert asked | methods | {"leaves_are_independent"} == {law.name for law in laws.ALL}
