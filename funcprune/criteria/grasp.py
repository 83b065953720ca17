"""GraSP: keep the gradient flow."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.func import jvp

from funcprune.criteria.additive import Additive
from funcprune.criteria.gradients import Data, Loss, Point, Progress, accumulated
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class Grasp(Additive):
    """``W (H g)``: what an entry adds to half the squared norm of the gradient."""

    data: Data

    def contributions(self, params: Params, masks: Masks | None, /) -> Scores:
        """``W (H g)``, with the gradient of the kept entries alone."""
        point = Point(params, masks)
        gradient = point.gradient(self.data.loss)
        flow = point.masked(accumulated(gradient(point.values, *batch) for batch in self.data))
        curved = accumulated(_along(gradient, point.values, flow, batch) for batch in self.data)
        return point.products(curved)

    def __repr__(self) -> str:
        return "grasp(...)"


def grasp(loss: Loss, *batch: Any, batches: Iterable[Any] | None = None, progress: Progress | None = None) -> Grasp:
    """The criterion ``W (H g)`` (GraSP): entries whose removal helps the gradient flow most go first.

    Removing a small part ``t`` of an entry changes ``|g|^2`` by ``-2 t W (H g)``. ``H g`` is a derivative of the
    gradient along itself, forward over reverse: no Hessian exists. The paper divides the logits by 200; do so in
    ``loss``. Arguments as `saliency`. A unit scores by the sum over it. Cost: two passes over the data, the second a
    forward-mode derivative of a backward pass; operations without one raise torch's own error.

    References: Wang, Zhang, Grosse 2020, arXiv:2002.07376.

    >>> loss = lambda params: (params["w"] ** 2 * torch.tensor([1.0, 2.0])).sum() + params["w"].sum() * 0
    >>> fp.criteria.grasp(lambda params, x: loss(params), None)({"w": torch.tensor([1.0, -1.0])})
    {'w': tensor([ 4., 16.])}
    """
    return Grasp(Data(loss, batch, batches, progress))


def _along(gradient: Callable[..., list[Tensor]], values: list[Tensor], flow: list[Tensor], batch: Any) -> list[Tensor]:
    """``H g``: the derivative of the gradient along ``flow``."""
    with warnings.catch_warnings():
        # The first jvp of a process makes torch load decompositions by its own deprecated torch.jit.script.
        warnings.filterwarnings("ignore", message="`torch.jit.script", category=DeprecationWarning)
        curved: list[Tensor] = jvp(lambda values: gradient(values, *batch), (values,), (flow,))[1]
    return curved
