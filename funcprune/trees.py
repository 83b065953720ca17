"""Pytrees of tensors: paths, checks and alignment. The one file that imports optree.

A parameter tree is any nesting of dicts, lists, tuples and NamedTuples whose leaves are tensors; a mask tree has the
same structure, and ``None`` is one of its leaves. Every traversal therefore treats ``None`` as a leaf.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import optree
import torch
from torch import Tensor

Params: TypeAlias = Any
"""A pytree of tensors, normally ``dict(model.named_parameters())``."""
Masks: TypeAlias = Any
"""A pytree of the structure of the params; a leaf is ``None`` or a bool tensor, ``True`` = keep."""
Scores: TypeAlias = Any
"""A pytree of the structure of the params; a leaf is a floating-point tensor, higher = keep."""
Spec: TypeAlias = optree.PyTreeSpec


def flatten(tree: Any, /) -> tuple[list[Any], Spec]:
    """The leaves of ``tree``, ``None`` among them, and its structure, whose ``unflatten(leaves)`` is the tree again."""
    leaves, spec = optree.tree_flatten(tree, none_is_leaf=True)
    return leaves, spec


def paths(tree: Any, /) -> list[str]:
    """The dotted path of every leaf, in the order of `flatten`: ``layers.0.weight``; a bare leaf has the path ``""``.

    NamedTuple and dataclass fields go by their names. Raises ValueError where two leaves would share a path.
    """
    return spec_paths(flatten(tree)[1])


def natural(path: str, /) -> tuple[list[str | int], str]:
    """The sort key of a path: natural order, ``layers.2`` before ``layers.10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)], path


def params(tree: Params, /) -> tuple[list[Tensor], Spec]:
    """The leaves and structure of a parameter tree; TypeError where a leaf is no tensor."""
    leaves, spec = flatten(tree)
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            _refuse_leaf(tree, index, leaf)
    return leaves, spec


def named(tree: Params, /) -> dict[str, Tensor]:
    """The tensors of a parameter tree by path, in natural order of the paths."""
    leaves, _ = params(tree)
    return dict(sorted(zip(paths(tree), leaves, strict=True), key=lambda item: natural(item[0])))


def align(spec: Spec, other: Any, what: str, /) -> list[Any]:
    """The leaves of ``other``, in the order of ``spec``; dictionaries align by key, whatever their order and type.

    Raises ValueError that names the path where ``other``, called ``what`` in the message, has another structure.
    """
    try:
        leaves: list[Any] = spec.flatten_up_to(other)
    except ValueError as error:
        raise ValueError(_structure_message(spec, other, what)) from error
    for index, leaf in enumerate(leaves):
        if not (leaf is None or isinstance(leaf, Tensor)):
            path = spec_paths(spec)[index]
            found = "a subtree" if not is_leaf(leaf) else type(leaf).__name__
            raise ValueError(f"{what} at {path!r}: found {found}, expected a tensor or None")
    return leaves


def beside(tree: Params, other: Any, what: str, /) -> dict[str, Any]:
    """The leaves of ``other``, which is called ``what`` in errors, by the paths of the parameter tree; see `align`."""
    _, spec = params(tree)
    return dict(zip(paths(tree), align(spec, other, what), strict=True))


def spec_paths(spec: Spec, /) -> list[str]:
    """The paths of the leaves of a structure; see `paths`."""
    names = [".".join(str(getattr(entry, "field", entry.entry)) for entry in leaf) for leaf in spec.accessors()]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two leaves have the path {twice!r}: rename one of the keys, paths must be unique")
    return names


def is_leaf(value: Any, /) -> bool:
    """Whether ``value`` is a leaf rather than a container."""
    return bool(optree.tree_is_leaf(value, none_is_leaf=True))


def closest(name: str, names: Iterable[str], /) -> str:
    """A hint for an unknown name: `` (did you mean 'conv1.weight'?)``, or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def matches(spec: Spec, tree: Any, /) -> bool:
    """Whether ``tree`` has the structure ``spec``; dictionaries match by key, whatever their order and type."""
    try:
        return all(map(is_leaf, spec.flatten_up_to(tree)))
    except ValueError:
        return False


def map_children(function: Callable[[Any], Any], tree: Any, /) -> Any:
    """The container ``tree`` with ``function`` applied to each of its children."""
    children, metadata, _, rebuild = optree.tree_flatten_one_level(tree, none_is_leaf=True)
    return rebuild(metadata, list(map(function, children)))


def _structure_message(spec: Spec, other: Any, what: str) -> str:
    if other is None or isinstance(other, torch.nn.Module):
        return f"{what}: found {type(other).__name__}, expected a tree with the leaves {_listed(spec_paths(spec))}"
    expected, found = spec_paths(spec), paths(other)
    missing, unexpected = (
        [path for path in left if path not in set(right)] for left, right in ((expected, found), (found, expected))
    )
    words = [f"missing {_listed(missing)}"] * bool(missing) + [f"unexpected {_listed(unexpected)}"] * bool(unexpected)
    if not words:  # the same paths in other containers
        tree = spec.unflatten(range(spec.num_leaves))
        errors = optree.prefix_errors(tree, other, none_is_leaf=True)
        words = [" ".join(str(errors[0](what)).split())]
    return f"{what} must have the structure of the tree they belong to: {', '.join(words)}"


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _refuse_leaf(tree: Any, index: int, leaf: Any) -> None:
    if isinstance(leaf, torch.nn.Module):
        raise TypeError("params: found a module, expected a pytree of tensors such as dict(model.named_parameters())")
    raise TypeError(f"params at {paths(tree)[index]!r}: found {type(leaf).__name__}, expected a tensor")
