"""The drop-in against torch.nn.utils.prune: the same calls give the same modules, draws and exceptions."""

import inspect

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.utils import prune as torch_prune

from funcprune.compat import prune

from . import strategies
from .helpers import state_of
from .strategies import Call, World


def outcome(call, module, model):
    """The type of exception a call raises, or None, and the random state it leaves."""
    try:
        call(module, model)
    except Exception as error:  # whatever the incumbent raises
        return type(error), None
    return None, torch.get_rng_state()


def replayed(world, calls):
    model = world.model()
    for call in calls:
        call(torch_prune, model)
    return model


def assert_same(theirs, ours, x, *, ordered):
    state, expected = ours.state_dict(), theirs.state_dict()
    if ordered:  # the incumbent moves a removed tensor to the end
        assert list(state) == list(expected)
    assert state.keys() == expected.keys()
    for name in state:
        assert torch.equal(state[name], expected[name]), name
    for layer, original in ((ours[0], theirs[0]), (ours[-1], theirs[-1])):
        assert [describe(hook) for hook in layer._forward_pre_hooks.values()] == [
            describe(hook) for hook in original._forward_pre_hooks.values()
        ]
        for name in ("weight", "bias"):
            assert torch.equal(getattr(layer, name), getattr(original, name))
            assert (getattr(layer, name).grad_fn is None) == (getattr(original, name).grad_fn is None)
    assert prune.is_pruned(ours) == torch_prune.is_pruned(theirs) == torch_prune.is_pruned(ours)
    out, wanted = ours(x), theirs(x)
    assert torch.equal(out, wanted)
    gradients = torch.autograd.grad(out.square().sum(), [p for _, p in sorted(ours.named_parameters())])
    expected_gradients = torch.autograd.grad(wanted.square().sum(), [p for _, p in sorted(theirs.named_parameters())])
    assert all(map(torch.equal, gradients, expected_gradients))


def describe(hook):
    steps = list(hook) if isinstance(hook, torch_prune.PruningContainer) else None
    amount = getattr(hook, "amount", None)
    return type(hook).__name__, hook._tensor_name, repr(amount), steps and list(map(describe, steps))


sequences = st.lists(strategies.calls, min_size=1, max_size=6)


@given(strategies.worlds, sequences)
@example(World("dense", 0), [Call("ln_structured", 0, "weight", {"amount": 1, "n": 2, "dim": 5, "scored": False}, 0)])
def test_sequences_of_calls_agree(world, calls):
    check_sequence(world, calls)


def check_sequence(world, calls):
    theirs, ours, done = world.model(), world.model(), []
    for call in calls:
        before = state_of(ours)
        error, random_state = outcome(call, torch_prune, theirs)
        found, found_state = outcome(call, prune, ours)
        if call.options.get("amount") != call.options.get("amount"):
            assert found in (error, ValueError)  # NaN is refused at once, before other arguments are looked at
        else:
            assert found is error
        if error is None:
            done.append(call)
            assert torch.equal(found_state, random_state)
        else:
            assert state_of(ours) == before
            theirs = replayed(world, done)  # a failed call leaves the incumbent's modules broken
    assert_same(theirs, ours, world.inputs(), ordered=all(call.kind != "remove" for call in done) and done == calls)


@given(
    strategies.SEEDS,
    st.sampled_from(["RandomUnstructured", "L1Unstructured", "RandomStructured", "LnStructured"]),
    strategies.good_amounts,
    st.sampled_from([0, 1, 2, -1]),
    st.booleans(),
)
def test_compute_mask_and_prune_agree(seed, kind, amount, dim, in_container):
    torch.manual_seed(seed)
    t, default = torch.randn(4, 3, 5), (torch.rand(4, 3, 5) < 0.8).float()
    found = []
    for module in (torch_prune, prune):
        arguments = {"RandomStructured": (amount, dim), "LnStructured": (amount, 2, dim)}.get(kind, (amount,))
        method = getattr(module, kind)(*arguments)
        if in_container:
            method._tensor_name = "t"
            method = module.PruningContainer(method)
        torch.manual_seed(seed)
        pruned = [
            method.compute_mask(t, default_mask=default.clone()),
            method.prune(t),
            method.prune(t, default.clone(), t.exp()),
        ]
        found.append([*pruned, torch.get_rng_state()])
    assert all(map(torch.equal, *found))


def test_one_object_stays_the_container_of_a_tensor():
    layers = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    for module, layer in zip((torch_prune, prune), layers, strict=True):
        first = module.L1Unstructured.apply(layer, "weight", 1)
        container = module.RandomUnstructured.apply(layer, "weight", 1)
        assert container[0] is first
        assert module.Identity.apply(layer, "weight") is container
        assert list(layer._forward_pre_hooks.values()) == [container]
        assert [type(method).__name__ for method in container] == ["L1Unstructured", "RandomUnstructured", "Identity"]


def public(module):
    defined = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name for name, value in defined.items() if getattr(value, "__module__", None) == module.__name__}


def test_every_public_name_is_there_with_its_signature():
    names = public(torch_prune)
    assert names == set(prune.__all__)
    for name in names:
        theirs, ours = getattr(torch_prune, name), getattr(prune, name)
        pairs = [(theirs, ours)]
        if inspect.isclass(theirs):
            assert getattr(theirs, "PRUNING_TYPE", None) == getattr(ours, "PRUNING_TYPE", None)
            pairs = [
                (getattr(theirs, m), getattr(ours, m)) for m in vars(theirs) if inspect.isroutine(getattr(theirs, m))
            ]
        for original, function in pairs:
            if inspect.isfunction(original) or inspect.ismethod(original):
                wanted = [(p.name, p.kind, p.default) for p in inspect.signature(original).parameters.values()]
                assert [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()] == wanted


ERRORS = {
    "no parameters": (ValueError, lambda module: module.global_unstructured([], module.L1Unstructured, amount=1)),
    "no iterable": (TypeError, lambda module: module.global_unstructured(3, module.L1Unstructured, amount=1)),
    "no dict": (
        TypeError,
        lambda module: module.global_unstructured(
            [(torch.nn.Linear(2, 2), "weight")], module.L1Unstructured, [1], amount=1
        ),
    ),
    "no such name": (AttributeError, lambda module: module.identity(torch.nn.Linear(2, 2), "wait")),
    "a buffer": (TypeError, lambda module: module.identity(torch.nn.BatchNorm1d(2), "running_mean")),
    "a parametrization": (
        TypeError,
        lambda module: module.identity(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2)), "weight"),
    ),
    "a mask of another shape": (
        AssertionError,
        lambda module: module.custom_from_mask(torch.nn.Linear(2, 2), "weight", torch.ones(2)),
    ),
    "not pruned": (ValueError, lambda module: module.remove(torch.nn.Linear(2, 2), "weight")),
    "an unknown norm": (
        RuntimeError,
        lambda module: module.ln_structured(torch.nn.Linear(2, 2), "weight", 1, "foo", 0),
    ),
    "abstract": (TypeError, lambda module: module.BasePruningMethod()),
    "no method": (TypeError, lambda module: module.PruningContainer().add_pruning_method(10)),
    "an unknown type": (
        ValueError,
        lambda module: of_type(module, PRUNING_TYPE="odd").compute_mask(torch.ones(2, 2), torch.ones(2, 2)),
    ),
    "structured without dim": (
        AttributeError,
        lambda module: of_type(module, PRUNING_TYPE="structured").compute_mask(torch.ones(2, 2), torch.ones(2, 2)),
    ),
}


@pytest.mark.parametrize("size", [2, 9])
def test_a_second_mask_of_another_size_is_refused(size):
    for module in (torch_prune, prune):
        layer = module.l1_unstructured(torch.nn.Linear(2, 2), "weight", 1)
        method = type(
            "Odd",
            (module.BasePruningMethod,),
            {"PRUNING_TYPE": "unstructured", "compute_mask": lambda self, t, default_mask: torch.ones(size)},
        )
        before = layer.weight_mask.clone()
        with pytest.raises(RuntimeError):
            method.apply(layer, "weight")
        assert torch.equal(layer.weight_mask, before)


def of_type(module, **attributes):
    method = type("Odd", (module.BasePruningMethod,), {"compute_mask": lambda self, t, default_mask: t, **attributes})()
    method._tensor_name = "weight"
    return module.PruningContainer(method)


@pytest.mark.parametrize(("error", "call"), ERRORS.values(), ids=ERRORS)
def test_exceptions_agree(error, call):
    for module in (torch_prune, prune):
        with pytest.raises(error):
            call(module)


def test_a_container_acts_on_one_tensor():
    for module in (torch_prune, prune):
        first, second = module.L1Unstructured(1), module.L1Unstructured(1)
        first._tensor_name, second._tensor_name = "weight", "bias"
        container = module.PruningContainer(first)
        with pytest.raises(ValueError, match="bias"):
            container.add_pruning_method(second)
        assert list(container) == [container[0]] == [first]


def test_methods_that_were_never_applied_say_so():
    for call in ("apply_mask", "remove"):
        with pytest.raises(AssertionError, match=r"L1Unstructured\.apply"):
            getattr(prune.L1Unstructured(1), call)(torch.nn.Linear(1, 1))
