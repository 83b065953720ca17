"""How funcprune is verified, and how you verify your own pruning: Hypothesis strategies, laws, and checks.

``import funcprune`` does not load this; ``import funcprune.testing`` does, and needs Hypothesis, which the extra
``funcprune[testing]`` installs. Torch's global generator is registered with Hypothesis, which seeds it for each example
and restores it afterwards, so that a failure replays.
"""

try:
    import hypothesis
except ImportError as error:
    raise ImportError("funcprune.testing needs Hypothesis: pip install 'funcprune[testing]'") from error

import torch

from funcprune.testing import laws, strategies, traits
from funcprune.testing.checks import applicable, check_criterion, check_method, check_pruner
from funcprune.testing.law import Case, Law, LawBrokenError, run

__all__ = [
    "Case",
    "Law",
    "LawBrokenError",
    "applicable",
    "check_criterion",
    "check_method",
    "check_pruner",
    "laws",
    "run",
    "strategies",
    "traits",
]


class _TorchRandom:
    """Torch's global generator as Hypothesis wants to see one."""

    seed = staticmethod(torch.default_generator.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_TORCH = _TorchRandom()  # Hypothesis keeps a weak reference
hypothesis.register_random(_TORCH)
