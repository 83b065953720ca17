"""Hypothesis profiles: quick by default, ``--hypothesis-profile=ci`` or ``nightly`` for more.

Quick draws the same examples every time, so that a clone that passed passes again; the others look for new ones.
"""

import hypothesis
import torch

hypothesis.settings.register_profile("quick", max_examples=20, deadline=None, derandomize=True)
hypothesis.settings.register_profile("ci", max_examples=60, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=5000, deadline=None)
hypothesis.settings.load_profile("quick")

torch.set_num_threads(1)  # tensors here are tiny: threads only wait for each other, for minutes on a busy machine
