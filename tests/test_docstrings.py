"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import funcprune

MODULES = [module.name for module in pkgutil.walk_packages(funcprune.__path__, "funcprune.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch, "fp": funcprune})
    assert results.failed == 0
