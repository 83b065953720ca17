"""Selectors: which leaves a pruner touches.

``where=`` takes a glob on the dotted path (``"conv*.weight"``, where ``*`` crosses dots), a predicate ``(path, leaf)
-> bool``, a selector made here, or a sequence of these, each of which must match something. Selectors combine by
``|``, ``&`` and ``~``. A ``where`` that matches no leaf is an error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor, nn

from funcprune import trees

__all__ = ["Selector", "Where", "default", "glob", "ndim", "of_type", "regex"]


class Selector:
    """A test of one leaf; ``a | b``, ``a & b`` and ``~a`` are selectors too."""

    def matches(self, path: str, leaf: Tensor) -> bool:
        """Whether the leaf at ``path`` is selected."""
        raise TypeError(f"{type(self).__name__} must define matches(path, leaf)")

    def __or__(self, other: "Where") -> "Selector":
        return _Any((self, parse(other)))

    def __ror__(self, other: "Where") -> "Selector":
        return _Any((parse(other), self))

    def __and__(self, other: "Where") -> "Selector":
        return _All((self, parse(other)))

    def __rand__(self, other: "Where") -> "Selector":
        return _All((parse(other), self))

    def __invert__(self) -> "Selector":
        return _Not(self)


Where: TypeAlias = str | Selector | Callable[[str, Tensor], bool] | Sequence["Where"]


@dataclass(frozen=True, repr=False)
class _Glob(Selector):
    pattern: str

    def matches(self, path: str, leaf: Tensor) -> bool:
        return fnmatchcase(path, self.pattern)

    def __repr__(self) -> str:
        return f"glob({self.pattern!r})"


@dataclass(frozen=True, repr=False)
class _Regex(Selector):
    pattern: str

    def matches(self, path: str, leaf: Tensor) -> bool:
        return re.fullmatch(self.pattern, path) is not None

    def __repr__(self) -> str:
        return f"regex({self.pattern!r})"


@dataclass(frozen=True, repr=False)
class _NDim(Selector):
    min: int
    max: int | None

    def matches(self, path: str, leaf: Tensor) -> bool:
        return self.min <= leaf.ndim and (self.max is None or leaf.ndim <= self.max)

    def __repr__(self) -> str:
        return f"ndim(min={self.min})" if self.max is None else f"ndim(min={self.min}, max={self.max})"


@dataclass(frozen=True, repr=False)
class _Default(Selector):
    def matches(self, path: str, leaf: Tensor) -> bool:
        return leaf.ndim >= 2 and leaf.is_floating_point()

    def __repr__(self) -> str:
        return "default"


@dataclass(frozen=True, repr=False)
class _Paths(Selector):
    paths: frozenset[str]
    label: str

    def matches(self, path: str, leaf: Tensor) -> bool:
        return path in self.paths

    def __repr__(self) -> str:
        return self.label


@dataclass(frozen=True, repr=False)
class _Predicate(Selector):
    function: Callable[[str, Tensor], bool]

    def matches(self, path: str, leaf: Tensor) -> bool:
        return bool(self.function(path, leaf))

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


@dataclass(frozen=True, repr=False)
class _Any(Selector):
    parts: tuple[Selector, ...]

    def matches(self, path: str, leaf: Tensor) -> bool:
        return any(part.matches(path, leaf) for part in self.parts)

    def __repr__(self) -> str:
        return "(" + " | ".join(map(repr, self.parts)) + ")"


@dataclass(frozen=True, repr=False)
class _All(Selector):
    parts: tuple[Selector, ...]

    def matches(self, path: str, leaf: Tensor) -> bool:
        return all(part.matches(path, leaf) for part in self.parts)

    def __repr__(self) -> str:
        return "(" + " & ".join(map(repr, self.parts)) + ")"


@dataclass(frozen=True, repr=False)
class _Not(Selector):
    part: Selector

    def matches(self, path: str, leaf: Tensor) -> bool:
        return not self.part.matches(path, leaf)

    def __repr__(self) -> str:
        return f"~{self.part!r}"


@dataclass(frozen=True, repr=False)
class _Each(_Any):
    """A sequence: any of its items, and each of them must match something."""

    def __repr__(self) -> str:
        return "[" + ", ".join(map(repr, self.parts)) + "]"


default: Selector = _Default()
"""What pruners select unless told otherwise: floating-point leaves with two or more dimensions."""


def glob(pattern: str, /) -> Selector:
    """Leaves whose whole path matches a case-sensitive glob; what a bare string means, as an operand.

    >>> fp.glob("conv*.weight").matches("conv1.weight", torch.zeros(2))
    True
    """
    return _Glob(pattern)


def regex(pattern: str, /) -> Selector:
    r"""Leaves whose whole path matches a regular expression. Raises ValueError where it is none.

    >>> fp.regex(r"conv\d\.weight").matches("conv1.weight", torch.zeros(2))
    True
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"regex({pattern!r}): not a regular expression: {error}") from error
    return _Regex(pattern)


def ndim(min: int = 0, max: int | None = None) -> Selector:  # noqa: A002 - the words a caller reads best
    """Leaves with at least ``min`` and at most ``max`` dimensions.

    >>> fp.ndim(min=2).matches("w", torch.zeros(2, 3))
    True
    """
    return _NDim(min, max)


def of_type(model: nn.Module, types: type[nn.Module] | tuple[type[nn.Module], ...], /, *names: str) -> Selector:
    """The parameters called ``names`` (all of them by default) of the submodules of these types.

    The paths are those of ``model.named_parameters()``: a tied parameter goes by its first name. The model is read
    once, here. Raises ValueError where no such parameter exists.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Conv2d(1, 1, 1))
    >>> fp.of_type(model, torch.nn.Conv2d, "weight").matches("1.weight", model[1].weight)
    True
    """
    canonical = {id(parameter): path for path, parameter in model.named_parameters()}
    found = frozenset(
        canonical[id(parameter)]
        for module in model.modules()
        if isinstance(module, types)
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if not names or name in names
    )
    kinds = types if isinstance(types, tuple) else (types,)
    words = [type(model).__name__, " | ".join(kind.__name__ for kind in kinds), *map(repr, names)]
    label = f"of_type({', '.join(words)})"
    if not found:
        raise ValueError(f"{label}: the model has no such parameter")
    return _Paths(found, label)


def parse(where: Where, /) -> Selector:
    """The selector that a ``where=`` means; TypeError where it means none."""
    if isinstance(where, Selector):
        return where
    if isinstance(where, str):
        return _Glob(where)
    if isinstance(where, Sequence):
        return _Each(tuple(map(parse, where)))
    if callable(where):
        return _Predicate(where)
    raise TypeError(
        f"where: found {type(where).__name__}, expected a glob, a selector, a predicate (path, leaf), or a sequence"
    )


def resolve(where: Where, leaves: Mapping[str, Tensor], /) -> list[str]:
    """The paths that ``where`` selects among ``leaves``, in their order.

    Raises ValueError where it, or an item of a sequence, selects none; the default selects nothing of nothing.
    """
    selector = parse(where)
    if not leaves and selector == default:
        return []
    for part in selector.parts if isinstance(selector, _Each) else (selector,):
        if isinstance(part, _Each):
            resolve(part, leaves)
        elif not any(part.matches(path, leaf) for path, leaf in leaves.items()):
            known = ", ".join(list(leaves)[:8]) + (", ..." if len(leaves) > 8 else "")
            hint = trees.closest(part.pattern, leaves) if isinstance(part, _Glob) else ""
            raise ValueError(f"where={part!r} matches none of the {len(leaves)} leaves{hint}: {known}")
    chosen = [path for path, leaf in leaves.items() if selector.matches(path, leaf)]
    if not chosen:
        raise ValueError(f"where={where!r} selects nothing: an empty sequence")
    return chosen
