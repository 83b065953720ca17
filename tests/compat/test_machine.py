"""A module's life in random order: installed, pruned further, trained, saved, copied, baked; always one truth."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch.nn.utils import prune as torch_prune

import funcprune as fp
from funcprune.compat import prune

from . import strategies


class Life(RuleBasedStateMachine):
    """The model, and beside it what it should be: the values of its parameters and their masks."""

    @initialize(world=strategies.worlds)
    def born(self, world):
        self.world, self.model = world, world.model()
        self.adopt(dict(self.model.named_parameters()), dict.fromkeys(dict(self.model.named_parameters())))
        self.x = world.inputs()

    def adopt(self, params, masks):
        self.params = dict(params)
        self.values = {name: parameter.detach().clone() for name, parameter in params.items()}
        self.masks = masks
        self.fresh = True  # hooks ran since parameters last changed

    def expected(self):
        return fp.masked_call(self.world.model(), self.values, self.masks, self.x)

    @rule(seed=strategies.SEEDS, dense=st.sets(st.sampled_from(["weight", "bias"])))
    def install(self, seed, dense):
        generator = torch.Generator().manual_seed(seed)
        more = {
            name: None if name.rpartition(".")[2] in dense else torch.rand(value.shape, generator=generator) < 0.8
            for name, value in self.values.items()
        }
        fp.compat.install(self.model, more)
        self.masks = fp.masks.intersect(self.masks, more)

    @rule(layer=strategies.layers, name=strategies.names, amount=st.floats(0, 0.5))
    def prune_more(self, layer, name, amount):
        index = layer % len(self.model)
        path = f"{index}.{name}"
        prune.l1_unstructured(self.model[layer], name, amount)
        self.masks = fp.Pruner(fp.criteria.magnitude(), amount, where=path)(self.values, self.masks)
        if self.masks[path] is None:
            self.masks = fp.identity(where=path)(self.values, self.masks)

    @rule(amount=st.floats(0, 0.5))
    def prune_globally(self, amount):
        # in the order of their paths, which decides ties: what was removed before left zeros
        entries = [(self.model[layer], name) for layer in (0, -1) for name in ("bias", "weight")]
        prune.global_unstructured(entries, prune.L1Unstructured, amount=amount)
        pruner = fp.chain(fp.l1_unstructured(amount, scope="global", where="*"), fp.identity(where="*"))
        self.masks = pruner(self.values, self.masks)

    @rule(layer=strategies.layers)
    def fail(self, layer):
        with pytest.raises(ValueError, match="10000"):
            prune.l1_unstructured(self.model[layer], "weight", 10_000)

    @rule()
    def forward(self):
        assert torch.equal(self.model(self.x), self.expected())
        self.fresh = True

    @rule()
    def step(self):
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        optimizer.zero_grad()
        self.model(self.x).square().sum().backward()
        values = {name: value.requires_grad_() for name, value in self.values.items()}
        loss = fp.masked_call(self.world.model(), values, self.masks, self.x).square().sum()
        gradients = torch.autograd.grad(loss, list(values.values()))
        for (name, parameter), gradient in zip(self.params.items(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient)
            assert self.masks[name] is None or not gradient[~self.masks[name]].any()
        optimizer.step()
        self.values = {name: parameter.detach().clone() for name, parameter in self.params.items()}
        self.fresh = False

    @rule(seed=strategies.SEEDS)
    def load(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.values = {name: torch.randn(value.shape, generator=generator) for name, value in self.values.items()}
        self.model.load_state_dict(fp.compat.join_state_dict(self.values, self.masks))
        self.fresh = True

    @rule()
    def load_into_another(self):
        dense, masks = fp.compat.split_state_dict(self.model.state_dict())
        self.model = fp.compat.install(self.world.model(), masks, params=dense)
        self.adopt(*fp.compat.extract(self.model))

    @rule()
    def deep_copy(self):
        self.model = copy.deepcopy(self.model)
        self.adopt(*fp.compat.extract(self.model))

    @rule(with_torch=st.booleans())
    def through_a_file(self, with_torch):
        if with_torch:
            file = io.BytesIO()
            torch.save(self.model, file)
            file.seek(0)
            self.model = torch.load(file, weights_only=False)
        else:
            self.model = pickle.loads(pickle.dumps(self.model))
        fresh = self.fresh
        self.adopt(*fp.compat.extract(self.model))
        self.fresh = fresh

    @rule()
    def extract_and_install_anew(self):
        params, masks = fp.compat.extract(self.model)
        self.model = fp.compat.install(fp.compat.clean(self.model), masks)
        assert all(fp.compat.extract(self.model)[0][name] is params[name] for name in params)
        self.fresh = True

    @precondition(lambda self: any(mask is not None for mask in self.masks.values()))
    @rule(data=st.data())
    def remove_one(self, data):
        path = data.draw(st.sampled_from([path for path, mask in self.masks.items() if mask is not None]))
        index, _, name = path.partition(".")
        data.draw(st.sampled_from([prune, torch_prune])).remove(self.model[int(index)], name)
        self.values[path] = fp.bake({path: self.values[path]}, {path: self.masks[path]})[path]
        self.masks[path] = None

    @rule()
    def bake(self):
        fp.compat.bake(self.model)
        self.values = fp.bake(self.values, self.masks)
        self.masks = dict.fromkeys(self.masks)
        assert list(dict(self.model.named_parameters())) == list(self.params)
        self.fresh = True

    @invariant()
    def one_truth(self):
        params, masks = fp.compat.extract(self.model)
        assert list(params) == list(masks) == list(self.params)
        for name in params:
            assert params[name] is self.params[name]
            assert torch.equal(params[name], self.values[name])
            assert (masks[name] is None) == (self.masks[name] is None)
        assert fp.masks.equal(masks, self.masks)
        assert prune.is_pruned(self.model) == any(mask is not None for mask in masks.values())

    @invariant()
    def masked_tensors_are_current(self):
        for path, mask in self.masks.items():
            if mask is not None and self.fresh:
                index, _, name = path.partition(".")
                assert torch.equal(getattr(self.model[int(index)], name), self.params[path] * mask)

    @invariant()
    def a_clean_copy_computes_the_same(self):
        clean = fp.compat.clean(self.model)
        assert torch.equal(fp.masked_call(clean, *fp.compat.extract(self.model), self.x), self.expected())


Life.TestCase.settings = settings(stateful_step_count=12)
test_life_of_a_module = Life.TestCase
