"""Many processes as one: `torchrun --nproc-per-node N` shares a step's micro batches among N ranks.

Rank r of W works on the micro batches r, r + W, ... of every step and the gradients are summed, so a step has the same
positions and the same noise however many ranks there are: a run may go on with another number of them. Rank 0 alone writes.
"""

import os
from collections.abc import Iterable
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """This process's place among those of a run; one alone when torchrun did not start it. Use as a context."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.local = int(os.environ.get("LOCAL_RANK", 0))
        self._side: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def __enter__(self) -> "Ranks":
        if self.world > 1:
            if torch.cuda.is_available():
                torch.cuda.set_device(self.local)
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            # Decisions travel apart from the gradients, so that taking one never waits for a GPU.
            self._side = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        return self

    def __exit__(self, *_: object) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    def micro_batches(self, accumulate: int) -> range:
        """Which of a step's micro batches are this rank's."""
        return range(self.rank, accumulate, self.world)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by rank 0's."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over the ranks."""
        if self.world > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                if work is not None:
                    work.wait()

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, true if it is on any rank: what all of them do next must be decided by all."""
        if self.world == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._side)
        return [bool(vote) for vote in votes]
