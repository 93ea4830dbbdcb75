"""Training shared by several processes or GPUs, through accelerate: each takes its part of every batch.

A script is started once a process (``accelerate launch --num_processes 2 script.py``, or torchrun); every training in
it is then shared. Each process shuffles and augments whole batches alike and takes its part of the rows; gradients
are averaged by the rows' number, so that the steps, and the weights at the end, are those of one process to rounding
wherever the loss is a mean over rows and nothing else is drawn, such as dropout. Every process evaluates all held-out
rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from causalsat.exceptions import ParameterError

__all__ = ["Sharing", "bare", "sharing", "shared_net"]


@dataclass
class Sharing:
    """The processes that share a training.

    Attributes
    ----------
    accelerator : accelerate.Accelerator
    rank, size : int
        Which process this is, and how many there are.
    weight : float
        Rows of the current batch here, over the mean number of rows of a process.
    """

    accelerator: Any
    rank: int
    size: int
    weight: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """What a skorch net that shares its training is made with; it prints nothing while ``verbose`` is 0."""
        return {"device": None, "accelerator": self.accelerator, "callbacks__print_log__sink": print}

    def part(self, rows: int) -> slice:
        """Rows of a batch that this process takes; all of them where there are fewer than processes."""
        if rows < self.size:
            self.weight = 1.0
            return slice(None)
        mine = slice(self.rank, None, self.size)
        self.weight = len(range(*mine.indices(rows))) * self.size / rows
        return mine

    def mean(self, *values: float) -> list[float]:
        """Means of numbers over the processes, the same in each."""
        import torch

        here = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return [float(v) for v in self.accelerator.reduce(here, reduction="mean").cpu()]


def sharing(device: str) -> Sharing | None:
    """The processes that this one was started together with; None where it is alone.

    Raises
    ------
    ParameterError
        If there are several, but accelerate is not installed.
    """
    size = int(os.environ.get("WORLD_SIZE") or 1)
    if size < 2:
        return None
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise ParameterError(
            f"training in {size} processes (WORLD_SIZE={size}) without accelerate ({error})",
            expected="accelerate",
            todo="pip install 'causalsat[distributed]', or start the script as one process",
        ) from error
    import torch

    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=device == "cpu" or not torch.cuda.is_available(), kwargs_handlers=[unused])
    return Sharing(accelerator, int(accelerator.process_index), int(accelerator.num_processes))


def shared_net(net_type: Any, shared: Sharing) -> Any:
    """A kind of skorch net that trains its part of each batch and averages gradients with the others."""
    from skorch.hf import AccelerateMixin

    class SharedNet(AccelerateMixin, net_type):  # type: ignore[misc]
        _criteria: list[str]

        def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Any:
            loss = super().get_loss(y_pred, y_true, X=X, training=training)
            return loss * shared.weight if training else loss

        def _initialize_accelerator(self) -> Any:
            """Share what has parameters: a loss without any has no gradients to average."""
            everything = self._criteria
            self._criteria = [name for name in everything if _learns(getattr(self, f"{name}_"))]
            try:
                return super()._initialize_accelerator()
            finally:
                self._criteria = everything

    return SharedNet


def _learns(part: Any) -> bool:
    return any(p.requires_grad for p in getattr(part, "parameters", tuple)())


def bare(module: Any) -> Any:
    """The module itself, without what wraps it while processes share a training."""
    from torch.nn.parallel import DistributedDataParallel

    return module.module if isinstance(module, DistributedDataParallel) else module
