"""What stands between a bad gradient and the weights.

The update of a step whose loss or gradient is not finite must not happen, yet asking a GPU after every step whether it
was good would stall it. So the question is answered on the device: fused AdamW takes `found_inf` (a nonzero skips the
update) and `grad_scale` (the gradients are divided by it, which is clipping without another pass over them). The flag stays
set once set: weights and moments remain as they were before the first bad step, however late the host looks.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import UnclipError


class TrainingDiverged(UnclipError):  # noqa: N818  # it is what happened
    """A loss or a gradient that is not finite; the update was not made, the last checkpoint is good."""


class Verdict:
    """Whether a step was good, and what to say if not; all of it on the device until somebody asks."""

    def __init__(self, step: int, bad: Tensor, loss: Tensor, norm: Tensor, norms: Mapping[str, Tensor]):
        self.step = step
        self.loss = loss
        self.norm = norm
        self._norms = norms
        self._flag, self._copied = bad, None
        if bad.is_cuda:
            # A plain .item() would wait for all that is queued by then; this copy is over when its own step is.
            self._flag = torch.empty((), pin_memory=True).copy_(bad, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def is_bad(self) -> bool:
        if self._copied:
            self._copied.synchronize()
        return bool(self._flag)

    def explain(self) -> dict[str, Any]:
        """The loss, the gradient norms that are not finite, by parameter, and the first thing that went wrong."""
        loss, norms = float(self.loss), {name: float(norm) for name, norm in self._norms.items()}
        wrong = [name for name, norm in norms.items() if not torch.isfinite(torch.tensor(norm))]
        first = (
            "the loss" if not torch.isfinite(self.loss) else f"the gradient of {wrong[0]}" if wrong else "the gradient norm"
        )
        return {
            "first": first,
            "loss": str(loss),
            "gradients": wrong,
            "finite": [name for name in norms if name not in wrong],
        }


class GuardedUpdate:
    """Clips the gradient's norm to `clip` (0: not), and updates the weights unless this step or one before was bad."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.AdamW, *, clip: float, device: torch.device):
        self.optimizer = optimizer
        self.clip = clip
        self._bad = torch.zeros((), device=device)
        self._trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def __call__(self, step: int, loss: Tensor, lr: float) -> Verdict:
        """The update of step `step` at rate `lr`, from the gradients that are there."""
        gradients = {name: parameter.grad for name, parameter in self._trained.items() if parameter.grad is not None}
        norms = torch._foreach_norm([*gradients.values()])  # pyright: ignore[reportPrivateImportUsage]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        good = torch.isfinite(norm) & torch.isfinite(loss)
        self._bad = torch.maximum(self._bad, (~good).float())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.found_inf = self._bad  # type: ignore[attr-defined]  # what GradScaler sets
        if self.clip:
            self.optimizer.grad_scale = (norm / self.clip).clamp(min=1.0)  # type: ignore[attr-defined]
        self.optimizer.step()
        return Verdict(step, self._bad, loss, norm, dict(zip(gradients, norms, strict=True)))
