"""Where and in which precision networks run."""

from __future__ import annotations

from typing import Any

from causalsat.exceptions import ParameterError

__all__ = ["on_device", "resolve_device", "share_devices", "use_half"]


def resolve_device(device: str) -> Any:
    """``"auto"`` is the GPU where there is one, else the CPU; anything else is torch's own name of a device."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ParameterError(
            f"device={device!r}", expected="'auto', 'cpu', 'cuda' or 'cuda:0'", todo="leave it at 'auto'"
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ParameterError(
            f"device={device!r}, but torch sees no GPU", expected="a GPU", todo="use device='auto' or 'cpu'"
        )
    return found


def share_devices(rank: int) -> None:
    """Let ``"cuda"`` mean, in this thread, the GPU of a worker: workers of one host take its GPUs in turn.

    Parameters
    ----------
    rank : int
        Which of its host's workers this one is, from 0.
    """
    import torch

    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n_devices > 1:
        torch.cuda.set_device(rank % n_devices)


def use_half(precision: str, device: Any, *, by_default: bool) -> bool:
    """Whether to multiply in bfloat16; ``"auto"`` does so on a GPU where ``by_default``."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise ParameterError(f"precision={precision!r}", expected="'auto', 'float32' or 'bfloat16'")
    if precision == "auto":
        return by_default and device.type == "cuda"
    return precision == "bfloat16"


def on_device(array: Any, device: Any, dtype: Any = None) -> Any:
    """An array as a tensor on the device: to a GPU from pinned memory, while the CPU goes on."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, dtype, non_blocking=True)
