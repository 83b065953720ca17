"""Deliberately wrong implementations, one or more for every law: what the law must catch."""

import copy
import operator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

import funcprune as fp
from funcprune import masks as algebra
from funcprune import pruners, trees
from funcprune.testing import strategies
from funcprune.testing.laws.methods import Method

from . import wrong_training

MATRICES = strategies.params(matrix=True)
WRITABLE = strategies.params(matrix=True, layouts=strategies.DENSE, nested=False)


class Wrong(NamedTuple):
    """A wrong subject, and the trees on which it shows."""

    subject: Any
    trees: Any = MATRICES


GUARDS: dict[str, list[Wrong]] = {}


def guards(*names: str, on: Any = MATRICES) -> Any:
    """Registers what the decorated class or function makes, or is, as a guard of the laws of these names."""

    def register(subject: Any) -> Any:
        for name in names:
            GUARDS.setdefault(name, []).append(Wrong(subject, on))
        return subject

    return register


def each(function: Any, *tree: Any) -> Any:
    """A tree made leaf by leaf."""
    spec = trees.flatten(tree[0])[1]
    return spec.unflatten(map(function, *(trees.align(spec, part, "tree") for part in tree)))


def flip(masks: Any) -> Any:
    return each(lambda leaf: None if leaf is None else ~leaf, masks)


def a_wrong_algebra(**parts: Any) -> Any:
    return SimpleNamespace(**{**vars(fp.masks), **parts})


guards("commutative")(a_wrong_algebra(intersect=lambda *masks: masks[0]))
guards("commutative")(a_wrong_algebra(union=lambda *masks: masks[-1]))
guards("associative")(a_wrong_algebra(intersect=lambda *masks: fp.masks.intersect(*masks[:2])))
guards("idempotent")(a_wrong_algebra(union=lambda *masks: flip(fp.masks.union(*masks))))
guards("absorption")(a_wrong_algebra(union=fp.masks.intersect))
guards("distributive")(a_wrong_algebra(union=lambda *masks: flip(fp.masks.union(*masks))))
guards("de_morgan")(a_wrong_algebra(invert=fp.masks.full))
guards("order")(a_wrong_algebra(is_subset=lambda a, b: fp.masks.is_subset(b, a)))
guards("order")(a_wrong_algebra(equal=lambda a, b: trees.flatten(a)[0] is trees.flatten(b)[0]))
guards("difference_is_intersection")(a_wrong_algebra(difference=lambda p, a, b: fp.masks.difference(p, b, a)))
guards("stack_unstack")(a_wrong_algebra(unstack=lambda masks: fp.masks.unstack(masks)[::-1]))


def none_absorbs(*masks: Any) -> Any:
    return each(lambda *leaves: None if None in map(id_of_none, leaves) else leaves[0] & leaves[-1], *masks)


def id_of_none(leaf: Any) -> Any:
    return None if leaf is None else 0


guards("none_is_all_true")(a_wrong_algebra(intersect=none_absorbs))


def none_counts_as_pruned(params: Any, masks: Any) -> Any:
    rows = fp.masks.counts(params, masks)
    none = {path for path, leaf in zip(trees.paths(masks), trees.flatten(masks)[0], strict=True) if leaf is None}
    return {path: row._replace(kept=0) if path in none else row for path, row in rows.items()}


guards("counts_add_up")(a_wrong_algebra(counts=none_counts_as_pruned))


def intersect_in_place(*masks: Any) -> Any:
    for a, b in zip(*(trees.flatten(tree)[0] for tree in masks), strict=True):
        if a is not None and b is not None and a.is_contiguous():
            a &= b
    return masks[0]


guards("algebra_is_pure")(a_wrong_algebra(intersect=intersect_in_place))


def a_wrong_masking(**parts: Any) -> Any:
    """The masking functions, with ``masked`` made of a wrong ``apply`` if there is one."""
    if "apply" in parts:
        parts["masked"] = lambda function: lambda params, masks: function(parts["apply"](params, masks))
    return SimpleNamespace(**{**vars(fp), **parts})


def per_mask(function: Any) -> Any:
    """An ``apply`` of a function of a leaf and a mask that is no None."""
    return lambda params, masks: each(lambda leaf, mask: leaf if mask is None else function(leaf, mask), params, masks)


def rescaled(leaf: Tensor, mask: Tensor) -> Tensor:
    """As dropout does it."""
    return leaf * mask * (mask.numel() / max(1, int(mask.sum())))


guards("apply_is_idempotent", "apply_composes")(a_wrong_masking(apply=per_mask(rescaled)))
guards("apply_of_nothing")(a_wrong_masking(apply=lambda p, m: each(lambda leaf: leaf.clone(), fp.apply(p, m))))
guards("apply_prunes")(a_wrong_masking(apply=per_mask(lambda leaf, mask: leaf * ~mask)))
guards("apply_preserves")(a_wrong_masking(apply=per_mask(lambda leaf, mask: leaf * mask.float())))
guards("apply_preserves")(a_wrong_masking(apply=per_mask(lambda leaf, mask: (leaf * mask).contiguous())))
guards("bake_is_exact")(a_wrong_masking(bake=fp.apply))
guards("bake_is_exact")(a_wrong_masking(bake=per_mask(lambda leaf, mask: torch.where(mask, leaf, 0.0))))
guards("project_is_bake")(a_wrong_masking(project_=fp.bake))
guards("gradients_are_masked")(a_wrong_masking(apply=per_mask(lambda leaf, mask: leaf + (leaf * mask - leaf).detach())))
guards("gradients_are_masked")(a_wrong_masking(apply=per_mask(lambda leaf, mask: (leaf * mask).detach() + 0 * leaf)))
guards("masking_is_pure", on=WRITABLE)(a_wrong_masking(apply=per_mask(lambda leaf, mask: leaf.mul_(mask))))
guards("vmap_is_the_loop")(
    a_wrong_masking(
        apply=per_mask(lambda leaf, mask: leaf if torch._C._functorch.is_batchedtensor(mask) else leaf * mask)
    )
)
guards("compiled_is_eager")(
    a_wrong_masking(apply=per_mask(lambda leaf, mask: leaf if bool(mask.all()) else leaf * mask))
)


@guards("project_is_bake")
class Projection(SimpleNamespace):
    bake = staticmethod(fp.bake)

    @staticmethod
    def project_(params: Any, masks: Any) -> Any:
        each(lambda leaf, mask: leaf if mask is None else leaf.mul_(mask), params, masks)  # leaves -0.0 and NaN
        return params


@guards("compiled_is_eager")
class CompiledAgainAtEachCall(SimpleNamespace):
    calls = 0

    @classmethod
    def masked(cls, function: Any) -> Any:
        def call(params: Any, masks: Any) -> Any:
            cls.calls += 1
            return function(fp.apply(params, masks)) + 0.0 * cls.calls

        return call


def ignores_masks(model: nn.Module) -> Any:
    call = fp.functional(model)
    return lambda params, masks, *inputs: call(params, each(lambda _: None, masks), *inputs)


def writes_to_the_module(model: nn.Module) -> Any:
    def call(params: Any, masks: Any, *inputs: Any) -> Any:
        with torch.no_grad():
            for name, leaf in fp.bake(params, masks).items():
                model.get_parameter(name).copy_(leaf)
        return model(*inputs)

    return call


guards("functional_is_baked")(a_wrong_masking(functional=ignores_masks))
guards("functional_leaves_the_module")(a_wrong_masking(functional=writes_to_the_module))


@dataclass(frozen=True, repr=False)
class Plain(fp.Pruner):
    """A pruner of entries at leaf scope written out, correct; the guards override one step of it."""

    criterion: Any = field(default_factory=fp.criteria.magnitude)
    amount: Any = 0.5

    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        if scores is None:
            scores = self.criterion(params, masks)
        masks = each(lambda _: None, params) if masks is None else masks
        paths = iter(trees.paths(params))
        chosen = fp.selectors.resolve(self.where, trees.named(params))
        return each(
            lambda leaf, mask, score: self.leaf(score, mask) if next(paths) in chosen else mask, params, masks, scores
        )

    def leaf(self, score: Tensor, mask: Tensor | None) -> Tensor:
        keep = algebra.written(score, mask).flatten().clone()
        alive = keep.nonzero()[:, 0]
        order = self.order(score.flatten()[alive])
        keep[alive[order[: self.count(score.numel(), len(alive))]]] = False
        return keep.reshape(score.shape)

    def order(self, scores: Tensor) -> Tensor:
        return scores.argsort(stable=True)

    def count(self, units: int, alive: int) -> int:
        if self.sparsity is not None:
            return max(0, round(self.sparsity * units) - (units - alive))
        return self.amount if isinstance(self.amount, int) else round(self.amount * alive)


def guards_made(*names: str, on: Any = MATRICES) -> Any:
    """`guards`, of an instance of the decorated class."""

    def register(cls: Any) -> Any:
        guards(*names, on=on)(cls())
        return cls

    return register


@guards_made("result_is_a_subset")
class Regrows(Plain):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        return super().__call__(params, None, scores=scores)


@guards_made("none_prunes_the_same")
class SparesUnmaskedLeaves(Plain):
    def leaf(self, score: Tensor, mask: Tensor | None) -> Any:
        return None if mask is None else super().leaf(score, mask)


@guards_made("pruner_is_pure", on=WRITABLE)
class WritesToParams(Plain):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        each(lambda leaf: leaf.abs_(), params)
        return super().__call__(params, masks, scores=scores)


@guards_made("pruner_is_pure", on=WRITABLE)
class WritesToTheMasksDict(Plain):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        masks |= super().__call__(params, masks, scores=scores)
        return masks


guards("result_is_reproducible")(Plain(lambda params, masks: each(torch.rand_like, params)))
guards("result_is_reproducible")(
    Plain(lambda params, masks: torch.manual_seed(0) and each(lambda leaf: torch.rand_like(leaf), params))
)


@guards("dict_order_is_irrelevant")
def first_leaf_goes(params: Any, masks: Any = None) -> Any:
    masks = each(lambda _: None, params) if masks is None else masks
    first = next(iter(params))
    return {**masks, first: torch.zeros(params[first].shape, dtype=torch.bool)} if isinstance(first, str) else masks


GUARDS["dict_order_is_irrelevant"] = [Wrong(first_leaf_goes, strategies.params(matrix=True, nested=False))]


@guards("nesting_is_irrelevant")
def top_level_goes(params: Any, masks: Any = None) -> Any:
    masks = each(lambda _: None, params) if masks is None else masks
    gone = {key for key, leaf in params.items() if isinstance(leaf, Tensor)} if isinstance(params, dict) else ()
    return (
        {key: torch.zeros(params[key].shape, dtype=torch.bool) if key in gone else mask for key, mask in masks.items()}
        if gone
        else masks
    )


@guards_made("other_leaves_keep_their_masks")
class IgnoresWhere(Plain):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        return each(lambda leaf: torch.zeros(leaf.shape, dtype=torch.bool), params)


guards("leaves_are_independent")(fp.l1_unstructured(0.5, scope="global"))


@dataclass(frozen=True, repr=False)
class EntriesForUnits(fp.Pruner):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        return replace(fp.l1_unstructured(0.5), amount=self.amount)(params, masks, scores=scores)


guards("units_go_whole")(EntriesForUnits(fp.criteria.magnitude(), 0.5, structure=fp.Slices(0)))


@guards_made("counts_are_exact")
class Threshold(Plain):
    """Keeps ``scores > kth``, and so prunes too many where scores tie."""

    def leaf(self, score: Tensor, mask: Tensor | None) -> Tensor:
        keep = algebra.written(score, mask)
        alive, count = score[keep], self.count(score.numel(), int(keep.sum()))
        return keep & (score > alive.kthvalue(count).values) if count else keep


@guards_made("counts_are_exact")
class RoundsDown(Plain):
    def count(self, units: int, alive: int) -> int:
        return int(self.amount * alive) if isinstance(self.amount, float) else super().count(units, alive)


@guards_made("ends_of_the_scale")
class KeepsOne(Plain):
    def count(self, units: int, alive: int) -> int:
        return max(0, min(super().count(units, alive), alive - 1))


@guards_made("ends_of_the_scale")
class PrunesOne(Plain):
    def count(self, units: int, alive: int) -> int:
        return min(alive, max(1, super().count(units, alive)))


@guards_made("budget_is_monotone")
class DrawsAnewForEachAmount(Plain):
    def order(self, scores: Tensor) -> Tensor:
        seed = hash((self.amount, self.sparsity)) % 2**31
        return torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))


@guards_made("sequential_is_direct")
class SparsityOfWhatIsAlive(Plain):
    def count(self, units: int, alive: int) -> int:
        return round(self.sparsity * alive) if self.sparsity is not None else super().count(units, alive)


@guards_made("lowest_scores_go")
class HighestGo(Plain):
    def order(self, scores: Tensor) -> Tensor:
        return scores.argsort(descending=True)


@guards_made("ties_go_in_order")
class LastTiesGoFirst(Plain):
    def order(self, scores: Tensor) -> Tensor:
        return len(scores) - 1 - scores.flip(0).argsort(stable=True)


@guards_made("own_scores_change_nothing")
class LowIsImportant(Plain):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        return super().__call__(params, masks, scores=None if scores is None else each(torch.neg, scores))


guards("signs_are_irrelevant")(Plain(lambda params, masks: params))
guards("scale_is_irrelevant")(Plain(lambda params, masks: each(lambda leaf: leaf.abs().clamp(max=1), params)))


@guards_made("permutations_carry_over")
class FirstGo(Plain):
    def order(self, scores: Tensor) -> Tensor:
        return torch.arange(len(scores))


@dataclass(frozen=True)
class Drawn:
    """A wrong random criterion: what its stream is made of, and how much of the values is in it."""

    seed: int = 0
    seeded: bool = True
    by_path: bool = True
    values: float = 0.0

    def __call__(self, params: Any, masks: Any = None) -> Any:
        drawn = fp.criteria.random(self.seed if self.seeded else 0)
        paths = iter(trees.paths(params))

        def score(leaf: Tensor) -> Tensor:
            path = next(paths)
            return (
                drawn({path if self.by_path else "": leaf})[path if self.by_path else ""] + self.values * leaf.float()
            )

        return each(score, params)


guards("seed_decides")(Plain(Drawn(seeded=False)))
guards("paths_have_streams")(Plain(Drawn(by_path=False)))
guards("values_are_irrelevant", on=strategies.params(matrix=True, finite=True))(Plain(Drawn(values=1.0)))


class ForgetsItsAmount(Plain):
    def __reduce__(self) -> Any:
        return ForgetsItsAmount, ()


guards("pruners_survive_pickle")(ForgetsItsAmount(amount=0.25))


@guards_made("nan_scores_are_refused")
class ReadsNaNAsZero(Plain):
    def leaf(self, score: Tensor, mask: Tensor | None) -> Tensor:
        return super().leaf(score.nan_to_num(), mask)


@guards_made("wrong_scores_are_refused")
class IgnoresScores(Plain):
    def __call__(self, params: Any, masks: Any = None, *, scores: Any = None) -> Any:
        return super().__call__(params, masks)


@guards_made("too_many_units_are_refused")
class PrunesWhatThereIs(Plain):
    def count(self, units: int, alive: int) -> int:
        return min(alive, super().count(units, alive))


def a_wrong_call(params: Any, masks: Any) -> Any:
    """Checks nothing: broadcasts, promotes, ignores keys."""
    return {key: leaf if masks.get(key) is None else 0 for key, leaf in params.items()}


guards(
    "wrong_shapes_are_refused", "wrong_dtypes_are_refused", "wrong_structures_are_refused", "non_tensors_are_refused"
)(a_wrong_call)


@guards("wrong_shapes_are_refused", "wrong_structures_are_refused")
def forgets_the_path(params: Any, masks: Any) -> Any:
    try:
        return fp.apply(params, masks)
    except ValueError as error:
        raise ValueError("masks do not fit") from error


@guards("wrong_amounts_are_refused")
def clamps(amount: Any = None, **budget: Any) -> Any:
    return fp.l1_unstructured(0.5)


@guards("units_partition_entries")
class Overlapping(fp.Slices):
    def __init__(self) -> None:
        super().__init__(0)

    def expand(self, units: Tensor, shape: Any, /) -> Tensor:
        return super().expand(units | units.roll(1), shape)


@guards("alive_is_a_kept_entry")
class AliveWhenWhole(Overlapping):
    expand = fp.Slices.expand

    def alive(self, shape: Any, mask: Tensor | None, /) -> Any:
        return None if mask is None else mask.movedim(0, -1).flatten(0, -2).all(0)


@guards("pruned_entries_do_not_count")
class CountsPrunedEntries(AliveWhenWhole):
    alive = fp.Slices.alive

    def pool(self, scores: Tensor, mask: Tensor | None, /) -> Tensor:
        return super().pool(scores, None)


for name in ("units_partition_entries", "alive_is_a_kept_entry", "pruned_entries_do_not_count"):
    GUARDS[name] = [Wrong(guard.subject()) for guard in GUARDS[name]]


def a_wrong_selection(**parts: Any) -> Any:
    right = {"or_": operator.or_, "and_": operator.and_, "invert": operator.invert, "resolve": fp.selectors.resolve}
    return SimpleNamespace(**{**right, **parts})


def resolves_nothing_quietly(where: Any, leaves: Any) -> Any:
    return [path for path, leaf in leaves.items() if fp.selectors.parse(where).matches(path, leaf)]


guards("operators_are_boolean")(a_wrong_selection(or_=operator.and_))
guards("operators_are_boolean")(a_wrong_selection(invert=lambda selector: selector))
guards("selection_is_what_matches")(a_wrong_selection(resolve=resolves_nothing_quietly))
guards("selection_is_what_matches")(
    a_wrong_selection(resolve=lambda where, leaves: sorted(fp.selectors.resolve(where, leaves)))
)


def a_wrong_combination(**parts: Any) -> Any:
    return SimpleNamespace(**{**vars(pruners), **parts})


guards("chain_is_a_sequence")(a_wrong_combination(chain=lambda *parts: fp.chain(*parts[::-1])))
guards("chain_is_a_sequence")(a_wrong_combination(chain=lambda *parts: fp.chain(*parts[-1:])))
guards("identity_changes_nothing")(a_wrong_combination(identity=lambda where: fp.chain()))
guards("identity_changes_nothing")(
    a_wrong_combination(identity=lambda where: lambda params, masks: algebra.full(params))
)
guards("custom_is_the_intersection")(a_wrong_combination(custom_from_mask=lambda masks: lambda params, before: masks))

guards("scores_fit_params")(lambda params, masks: each(lambda leaf: leaf.flatten(), params))
guards("scores_fit_params")(lambda params, masks: each(lambda leaf: leaf.nan_to_num().long(), params))
guards("finite_params_have_ranks")(lambda params, masks: each(lambda leaf: leaf.abs() / leaf.abs().sum(), params))
guards("criterion_is_pure", on=WRITABLE)(lambda params, masks: each(lambda leaf: leaf.abs_(), params))
guards("scores_are_reproducible")(lambda params, masks: each(torch.rand_like, params))
guards("scores_ignore_nesting")(lambda params, masks: each(lambda leaf: torch.full_like(leaf, len(params)), params))
guards("scores_ignore_masks")(lambda params, masks: fp.apply(params, masks))


@guards_made("entrywise_is_the_criterion", on=strategies.params(matrix=True, finite=True))
class SharesOfTheLeaf:
    def __call__(self, params: Any, masks: Any = None) -> Any:
        return each(self.entrywise, params)

    def entrywise(self, values: Tensor) -> Tensor:
        return values.abs() - values.abs().mean()


def a_wrong_adapter(**parts: Any) -> Any:
    return SimpleNamespace(**{**vars(fp.compat), **parts})


def installs_weights_only(model: nn.Module, masks: Any) -> nn.Module:
    return fp.compat.install(model, {name: mask if "weight" in name else None for name, mask in masks.items()})


def extracts_copies(model: nn.Module) -> Any:
    params, masks = fp.compat.extract(model)
    return {name: leaf.detach().clone() for name, leaf in params.items()}, masks


def bakes_negative_zeros(model: nn.Module) -> nn.Module:
    _, masks = fp.compat.extract(model)
    fp.compat.bake(model)
    with torch.no_grad():
        for name, leaf in model.named_parameters():
            if masks[name] is not None:
                leaf[~masks[name]] = -0.0
    return model


def bakes_copies(model: nn.Module) -> nn.Module:
    return copy.deepcopy(fp.compat.bake(model))


def joins_without_masks(dense: Any, masks: Any) -> Any:
    return dense


guards("extract_inverts_install")(a_wrong_adapter(install=installs_weights_only))
guards("extract_inverts_install")(a_wrong_adapter(extract=extracts_copies))
guards("install_is_the_masked_call")(a_wrong_adapter(install=installs_weights_only))
guards("module_bake_is_bake")(a_wrong_adapter(bake=bakes_copies))
guards("module_bake_is_bake")(a_wrong_adapter(bake=bakes_negative_zeros))
guards("state_dicts_round_trip")(a_wrong_adapter(join_state_dict=joins_without_masks))
guards("state_dicts_round_trip")(a_wrong_adapter(split_state_dict=lambda state: (state, {})))
guards("masks_survive_files")(lambda masks: each(lambda leaf: None if leaf is None else leaf.float(), masks))
guards("masks_survive_files")(lambda masks: each(lambda leaf: None if leaf is None or leaf.all() else leaf, masks))


class Unstructured(BasePruningMethod):
    PRUNING_TYPE = "unstructured"
    calls = 0

    def __init__(self, amount: float = 0.5) -> None:
        self.amount = amount


class SoftMask(Unstructured):
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return torch.sigmoid(t)


class WritesToTheDefault(Unstructured):
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        default_mask.view(-1)[0] = 0
        return default_mask


class ThresholdMethod(Unstructured):
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        count = round(self.amount * t.numel())
        return default_mask * (t.abs() > t.abs().flatten().kthvalue(count).values) if count else default_mask.clone()


class EveryOtherCall(Unstructured):
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        Unstructured.calls += 1
        return default_mask * (Unstructured.calls % 2)


guards("method_masks_are_binary")(Method(SoftMask, (), {}))
guards("method_is_pure")(Method(WritesToTheDefault, (), {}))
guards("method_counts_are_exact")(Method(ThresholdMethod, (), {"amount": 0.5}))
guards("method_is_the_pure_pruner")(Method(EveryOtherCall, (), {}))

GUARDS.update(wrong_training.GUARDS)
