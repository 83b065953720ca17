"""Laws as values, and how one is run.

A law is a sentence with a check: a function of a subject (what is judged: a pruner, a criterion, an implementation of
the algebra) and a `Case`, which draws what the law is tried on. A check that returns is content; one that raises
AssertionError has found a counterexample.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from funcprune import trees
from funcprune.testing import strategies
from funcprune.trees import Masks, Params

T = TypeVar("T")


@dataclass(frozen=True)
class Law:
    """What must hold, of what, and how to find out.

    Args:
        name: an identifier, unique among the laws.
        group: the file it stands in.
        of: what kind of subject it judges: ``"pruner"``, ``"criterion"``, ``"algebra"``, ...
        statement: the law in one sentence.
        needs: the traits a subject must have for the law to apply; see `funcprune.testing.traits`.
        check: ``(subject, case) -> None``; AssertionError where the law is broken.
        cost: how many examples of other laws an example is worth; a check that is slow gets so many times fewer.
    """

    name: str
    group: str
    of: str
    statement: str
    needs: frozenset[str]
    check: Callable[[Any, "Case"], None]
    cost: int = 1


def law(
    of: str, statement: str, /, *, needs: Iterable[str] = (), cost: int = 1
) -> Callable[[Callable[[Any, "Case"], None]], Law]:
    """A decorator that makes a check a `Law`, named after the function and grouped by its file."""

    def decorate(check: Callable[[Any, Case], None]) -> Law:
        group = check.__module__.rpartition(".")[2]
        return Law(check.__name__, group, of, statement, frozenset(needs), check, cost)

    return decorate


@dataclass(frozen=True)
class Case:
    """What a law is tried on: every draw is labelled, and shows under its label in a minimal example."""

    data: st.DataObject
    trees: st.SearchStrategy[Params]

    def draw(self, strategy: st.SearchStrategy[T], label: str) -> T:
        """A value of any strategy."""
        return self.data.draw(strategy, label=label)

    def params(self) -> Params:
        """A parameter tree that the subject is meant for."""
        return self.draw(self.trees, "params")

    def masks(self, params: Params, label: str = "masks") -> Masks:
        """Masks for these params."""
        return self.draw(strategies.masks(params), label)


class LawBrokenError(AssertionError):
    """A subject broke ``law``; the message holds its sentence and the minimal example."""

    def __init__(self, law: Law, subject: object, error: BaseException) -> None:
        self.law = law
        example = [note for note in getattr(error, "__notes__", []) if not note.startswith(_NOISE)]
        lines = [
            f"{getattr(subject, '__name__', None) or repr(subject)} breaks the law {law.name!r}:",
            f"    {law.statement}",
            "Minimal example:",
            *(f"    {line}" for note in example for line in note.splitlines()),
            f"Found: {type(error).__name__}: {error}" if not isinstance(error, AssertionError) else f"Found: {error}",
        ]
        super().__init__("\n".join(lines))


_NOISE = ("Falsifying", "Failing", "Explanation", "You can", "Highly")


def run(
    law: Law,
    subject: Any,
    /,
    *,
    trees: st.SearchStrategy[Params] | None = None,
    options: settings | None = None,
) -> None:
    """Nothing, where Hypothesis finds no counterexample to ``law``.

    Args:
        law: the law.
        subject: what it judges, or a strategy of such.
        trees: the parameter trees to try; trees of all kinds by default.
        options: Hypothesis settings, by default those of the profile in force, without a deadline.

    Raises:
        LawBrokenError: the law is broken; the message is the law's sentence and the minimal example.
    """
    chosen = options or settings(deadline=None)
    count = max(1, chosen.max_examples // law.cost)
    phases = [phase for phase in chosen.phases if phase != Phase.explain]
    chosen = settings(
        chosen,
        max_examples=count,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    source = strategies.params() if trees is None else trees

    @chosen
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        judged = data.draw(subject, label=law.of) if isinstance(subject, st.SearchStrategy) else subject
        law.check(judged, Case(data, source))

    try:
        attempt()
    except hypothesis.errors.HypothesisException:
        raise  # the run went wrong, not the law
    except Exception as error:
        raise LawBrokenError(law, subject, error) from error


def ensure(condition: object, words: str, /) -> None:
    """Raises AssertionError with these words where ``condition`` is false, under ``python -O`` too."""
    if not condition:
        raise AssertionError(words)


def same(found: Any, expected: Any, what: str = "result", /) -> None:
    """Raises AssertionError where two trees differ in structure, shapes, dtypes or values; NaN equals NaN."""
    right, spec = trees.flatten(expected)
    try:
        left = trees.align(spec, found, what)
    except ValueError as error:
        raise AssertionError(str(error)) from error
    for path, a, b in zip(trees.spec_paths(spec), left, right, strict=True):
        ensure(
            (a is None and b is None) or (isinstance(a, Tensor) and isinstance(b, Tensor) and _equal(a, b)),
            f"{what} at {path!r}: found {a}, expected {b}",
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


@contextmanager
def untouched(*inputs: Any) -> Iterator[None]:
    """Raises AssertionError where, by the end of the block, any of these trees was changed."""
    leaves = [leaf for tree in inputs for leaf in trees.flatten(tree)[0] if isinstance(leaf, Tensor)]
    before = [(leaf._version, leaf.requires_grad, leaf.stride(), leaf.detach().clone()) for leaf in leaves]
    kept = [trees.flatten(tree) for tree in inputs]
    yield
    for leaf, (version, grad, stride, values) in zip(leaves, before, strict=True):
        ensure(leaf._version == version and _equal(leaf.detach(), values), f"an input was written to: {leaf}")
        ensure((leaf.requires_grad, leaf.stride()) == (grad, stride), f"an input was changed: {leaf}")
    for tree, (found, spec) in zip(inputs, kept, strict=True):
        now, structure = trees.flatten(tree)
        unchanged = structure == spec and all(a is b for a, b in zip(now, found, strict=True))
        ensure(unchanged, "a container that was passed in was changed")


@contextmanager
def global_state_untouched() -> Iterator[None]:
    """Raises AssertionError where the block moved torch's global generator."""
    before = torch.get_rng_state()
    yield
    ensure(torch.equal(torch.get_rng_state(), before), "torch's global generator was advanced or seeded")
