"""install, extract, clean, bake: masks into modules and out again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

import funcprune as fp
from funcprune.compat import prune

from . import strategies
from .helpers import bits, state_of


def random_masks(model, seed, *, dense=()):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: None if name in dense else torch.rand(parameter.shape, generator=generator) < 0.6
        for name, parameter in model.named_parameters()
    }


models = {
    "dense": lambda: (strategies.dense(), torch.randn(3, 6)),
    "convolution": lambda: (strategies.convolution(), torch.randn(3, 2, 3)),
    "tied": lambda: (tied(), torch.randn(3, 4)),
    "shared": lambda: (shared(), torch.randn(3, 4)),
    "normed": lambda: (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), torch.randn(3, 4)),
    "lstm": lambda: (Last(nn.LSTM(4, 3, num_layers=2, batch_first=True)), torch.randn(2, 5, 4)),
    "encoder": lambda: (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), torch.randn(2, 3, 4)),
}


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def shared():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


class Last(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x):
        return self.recurrent(x)[0]


@pytest.mark.parametrize("kind", models)
@given(seed=strategies.SEEDS, data=st.data())
def test_an_installed_model_is_the_masked_call(kind, seed, data):
    torch.manual_seed(seed)
    model, x = models[kind]()
    params = dict(model.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in params.items()}
    masks = random_masks(model, seed, dense=data.draw(st.sets(st.sampled_from(sorted(params)))))

    assert fp.compat.install(model, masks) is model
    found, found_masks = fp.compat.extract(model)
    assert list(found) == list(found_masks) == list(params)
    for name, parameter in params.items():
        assert found[name] is parameter
        assert torch.equal(parameter, values[name])
        assert (found_masks[name] is None) == (masks[name] is None)
    assert fp.masks.equal(found_masks, masks)

    for name, module in model.named_modules():
        for attribute in ("weight", "bias"):
            path = f"{name}.{attribute}" if name else attribute
            if masks.get(path) is not None:
                assert torch.equal(getattr(module, attribute), found[path] * masks[path])
                assert getattr(module, f"{attribute}_mask").dtype == found[path].dtype

    out = model(x)
    expected = fp.masked_call(fp.compat.clean(model), found, masks, x)
    assert torch.equal(out, expected)
    given_gradients = torch.autograd.grad(out.square().sum(), list(found.values()))
    expected_gradients = torch.autograd.grad(expected.square().sum(), list(found.values()))
    for name, gradient, wanted in zip(found, given_gradients, expected_gradients, strict=True):
        assert torch.equal(gradient, wanted)
        assert masks[name] is None or not gradient[~masks[name]].any()

    assert fp.compat.bake(model) is model
    baked = fp.bake(values, masks)
    assert [name for name, _ in model.named_parameters()] == list(params)
    for name, parameter in model.named_parameters():
        assert parameter is params[name]
        assert torch.equal(bits(parameter), bits(baked[name]))
    assert not prune.is_pruned(model)
    assert torch.equal(model(x), out) or torch.allclose(model(x), out)
    fresh = models[kind]()[0]
    assert dict(model.state_dict()).keys() == dict(fresh.state_dict()).keys()
    assert [vars(part).keys() for part in model.modules()] == [vars(part).keys() for part in fresh.modules()]


@given(strategies.worlds, st.lists(strategies.calls, max_size=4), strategies.SEEDS, st.randoms(use_true_random=False))
def test_extract_reads_any_mixture_and_installing_composes(world, calls, seed, choice):
    model = world.model()
    params = dict(model.named_parameters())
    for call in calls:
        module = choice.choice([prune, torch_prune])
        if call.kind in ("remove", "step"):
            continue
        try:
            call(prune, world.model())
        except Exception:
            continue  # a bad call
        try:
            call(module, model)
        except ValueError:
            return  # more than what is left: torch's functions leave a broken module
    before, x = state_of(model), world.inputs()
    found, masks = fp.compat.extract(model)
    assert state_of(model) == before
    assert found.keys() == params.keys()
    assert all(found[name] is params[name] for name in params)
    assert torch.equal(model(x), fp.masked_call(fp.compat.clean(model), found, masks, x))

    more = random_masks(world.model(), seed, dense=("0.bias",))
    fp.compat.install(model, more)
    after = fp.compat.extract(model)[1]
    assert fp.masks.equal(after, fp.masks.intersect(masks, more))
    assert torch.equal(model(x), fp.masked_call(fp.compat.clean(model), found, after, x))


def test_order_is_that_of_registration_where_torch_pruned():
    layer = torch_prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)
    assert list(fp.compat.extract(layer)[0]) == ["bias", "weight"]
    prune.l1_unstructured(layer, "weight", 1)
    assert list(fp.compat.extract(layer)[0]) == ["bias", "weight"]
    assert [name for name, _ in fp.compat.bake(layer).named_parameters()] == ["bias", "weight"]


def test_install_copies_values_into_the_parameters_there_are():
    model = strategies.dense()
    params = dict(model.named_parameters())
    values = {name: torch.randn_like(parameter) for name, parameter in params.items()}
    masks = random_masks(model, 0, dense=("2.bias",))
    fp.compat.install(model, masks, params=values)
    found, _ = fp.compat.extract(model)
    for name in params:
        assert found[name] is params[name]
        assert torch.equal(found[name], values[name])
    assert torch.equal(model[0].weight, values["0.weight"] * masks["0.weight"])
    again = {name: torch.randn_like(parameter) for name, parameter in params.items()}
    fp.compat.install(model, dict.fromkeys(params), params=again)
    assert torch.equal(model[0].weight, again["0.weight"] * masks["0.weight"])


def test_install_can_exchange_the_values_of_parameters():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    first, second = (layer.weight.detach().clone() for layer in model)
    exchanged = {"0.weight": model[1].weight, "1.weight": model[0].weight}
    fp.compat.install(model, dict.fromkeys(exchanged), params=exchanged)
    assert torch.equal(model[0].weight, second)
    assert torch.equal(model[1].weight, first)


def test_clean_shares_tensors_and_leaves_the_model_alone():
    model = fp.compat.install(
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        {"0.weight": torch.eye(3).bool(), "0.bias": None, "1.weight": None, "1.bias": None},
    )
    model.note = {"kept": [1]}
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    before = state_of(model)
    clean = fp.compat.clean(model)
    assert state_of(model) == before
    assert list(dict(clean.named_parameters())) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert clean[0].weight is model[0].weight_orig
    assert clean[1].running_mean is model[1].running_mean
    assert not prune.is_pruned(clean)
    assert clean.note == model.note
    assert type(clean[0]) is nn.Linear
    clean(torch.randn(2, 3))
    assert calls == [1]
    assert not any(part.__dict__.get("__deepcopy__") for part in clean.modules())
    assert fp.compat.clean(nn.Linear(1, 1)).training


def wrong(change):
    def call(model):
        masks = random_masks(strategies.dense(), 0)
        change(masks)
        fp.compat.install(model, masks)

    return call


REFUSED = {
    "unknown name": (ValueError, r"'0\.wait'.*did you mean '0\.weight'", wrong(lambda m: m.update({"0.wait": None}))),
    "missing name": (ValueError, r"missing '0\.weight'", wrong(lambda m: m.pop("0.weight"))),
    "shape": (ValueError, r"'2\.bias'.*shape", wrong(lambda m: m.update({"2.bias": torch.ones(9).bool()}))),
    "dtype": (TypeError, r"'2\.bias'.*dtype", wrong(lambda m: m.update({"2.bias": torch.ones(4)}))),
    "no dict": (TypeError, "found list", lambda model: fp.compat.install(model, [None])),
    "params: shape": (
        ValueError,
        r"params at '2\.bias'",
        lambda model: fp.compat.install(
            model,
            random_masks(model, 0),
            params={name: p.detach()[:2] if name == "2.bias" else p for name, p in model.named_parameters()},
        ),
    ),
    "params: names": (ValueError, "params", lambda model: fp.compat.install(model, random_masks(model, 0), params={})),
}


@pytest.mark.parametrize(("error", "words", "call"), REFUSED.values(), ids=REFUSED)
def test_install_refuses_and_changes_nothing(error, words, call):
    model = strategies.dense()
    before = state_of(model)
    with pytest.raises(error, match=words):
        call(model)
    assert state_of(model) == before


def parametrized():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parametrize.register_parametrization(model[1], "weight", nn.Tanh())
    return model


def occupied():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].register_buffer("weight_mask", torch.ones(2, 2))
    return model


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (parametrized, TypeError, "1.parametrizations.weight.original.*parametrized"),
        (occupied, ValueError, r"1\.weight.*weight_mask"),
    ],
)
def test_install_refuses_tensors_it_cannot_hold(make, error, words):
    model = make()
    before = state_of(model)
    with pytest.raises(error, match=words):
        fp.compat.install(model, random_masks(model, 0))
    assert state_of(model) == before


def test_tied_names_have_one_mask():
    model = tied()
    masks = random_masks(model, 0)
    both = masks | {"2.weight": masks["0.weight"]}
    fp.compat.install(model, both)
    assert fp.masks.equal(fp.compat.extract(model)[1], masks)

    model = tied()
    with pytest.raises(ValueError, match=r"'2\.weight' is tied to '0\.weight'"):
        fp.compat.install(model, masks | {"2.weight": ~masks["0.weight"]})
    prune.l1_unstructured(model[0], "weight", 3)
    with pytest.raises(ValueError, match=r"'2\.weight' and '0\.weight' are one tied parameter"):
        fp.compat.extract(model)
    torch_prune.l1_unstructured(model[2], "weight", 5)
    kept = model[0].weight_mask * model[2].weight_mask
    fp.compat.bake(model)
    assert model[0].weight is model[2].weight
    assert torch.equal(model[2].weight != 0, kept.bool())


def test_functional_refuses_hooks_and_names_the_way():
    model = prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)
    with pytest.raises(ValueError, match=r"compat\.clean"):
        fp.functional(model)
    x = torch.randn(1, 2)
    assert torch.equal(fp.functional(fp.compat.clean(model))(*fp.compat.extract(model), x), model(x))
