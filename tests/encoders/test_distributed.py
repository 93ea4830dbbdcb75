"""Training shared by two processes gives what one gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from causalsat.encoders.networks.distributed import Sharing, sharing
from causalsat.exceptions import ParameterError

SCRIPT = Path(__file__).with_name("shared_training.py")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def in_two(out: Path, *options: str) -> list[dict[str, np.ndarray]]:
    """Run the script in two processes on the CPU, as torchrun and accelerate launch start them."""
    pytest.importorskip("accelerate", reason="extra 'distributed'")
    port = str(free_port())
    world = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out), *options],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        _, words = process.communicate(timeout=300)
        assert process.returncode == 0, words[-2000:]
    return [dict(np.load(out / f"{rank}.npz")) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from shared_training import train
    finally:
        sys.path.pop(0)
    alone, plain = train(), {f"plain_{name}": value for name, value in train(plain=True).weights.items()}
    first, second = in_two(tmp_path, "--checkpoint")
    assert set(first) == {*alone.weights, *alone.criterion, *plain, "history", "valid"}
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    for name, value in {**alone.weights, **alone.criterion, **plain}.items():
        np.testing.assert_allclose(first[name], value, atol=2e-5)
    np.testing.assert_allclose(first["history"], alone.history, rtol=2e-4)
    assert first["history"][-1, 0] < first["history"][0, 0]
    assert [path.name for path in tmp_path.glob("*.p*t")] == ["checkpoint.pt"]
    resumed = train(str(tmp_path / "checkpoint.pt"))  # one process goes on from what two have written
    assert resumed.history == [tuple(pair) for pair in first["history"].tolist()]


def test_the_parts_of_a_batch_are_all_of_it() -> None:
    parts = [Sharing(None, rank, 3) for rank in range(3)]
    for rows in (3, 7, 32):
        taken = [list(range(rows))[part.part(rows)] for part in parts]
        assert sorted(row for part in taken for row in part) == list(range(rows))
        np.testing.assert_allclose([part.weight for part in parts], [len(t) * 3 / rows for t in taken])
    assert parts[1].part(2) == slice(None)
    assert parts[1].weight == 1.0


def test_without_accelerate_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sharing("cpu") is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ParameterError, match=r"2 processes .*causalsat\[distributed\]"):
        sharing("cpu")
