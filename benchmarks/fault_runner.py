"""Runs one faulty case in a process of its own and says how it ended; memory of a job above what was there before."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

# tqdm's own lock is shared by forked processes: one that is killed while it holds it would stop the others
tqdm.set_lock(threading.RLock())

ENDS = ("right", "error", "wrong", "unclear", "crash")


@dataclass
class Case:
    """A fault: its name, what to run, and a word that a clear error has to name.

    ``run`` returns True where the result is the right one.
    """

    name: str
    run: Callable[[], bool]
    names: str = ""
    seconds: float = 300.0
    warm: bool = True  # whether the first of its kind is run here once, so that children find all imports done


@dataclass
class Tally:
    """How the cases of one fault ended."""

    fault: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """Number of cases."""
        return sum(self.counts.values())

    @property
    def good(self) -> bool:
        """Whether every case ended in the right result or a clear error."""
        return self.cases > 0 and self.counts["right"] + self.counts["error"] == self.cases


def judge(case: Case) -> tuple[str, str]:
    """Run a case here: right, error (a causalsat error that names the file and a remedy), wrong or unclear."""
    from causalsat.exceptions import CausalsatError

    try:
        right = case.run()
    except CausalsatError as error:
        clear = case.names in str(error) and bool(error.todo or error.expected)
        return ("error" if clear else "unclear"), str(error)
    except Exception as error:  # whatever else a user would see
        return "unclear", f"{type(error).__name__}: {error}"
    return ("right" if right else "wrong"), ""


def in_a_child(case: Case) -> tuple[str, str]:
    """Run a case in a forked process, so that a crash or a hang is seen."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(write, json.dumps(judge(case))[:60000].encode())
        os._exit(0)
    os.close(write)
    found = b""
    end = time.monotonic() + case.seconds
    while (left := end - time.monotonic()) > 0 and select.select([read], [], [], left)[0]:
        part = os.read(read, 65536)
        if not part:
            break
        found += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(read)
    status = os.waitpid(child, 0)[1]
    if not found:
        return "crash", f"no end in {case.seconds:g} s" if os.WTERMSIG(
            status
        ) == 9 else f"signal {os.WTERMSIG(status)}"
    end_word, words = json.loads(found)
    return str(end_word), str(words)


def tally(fault: str, cases: Iterable[Case], *, fork: bool = True) -> Tally:
    """Run all cases of a fault."""
    counted = Tally(fault)
    for number, case in enumerate(cases):
        if fork and not number and case.warm:
            judge(case)  # what it imports is then there in every child
        end, words = in_a_child(case) if fork else judge(case)
        counted.counts[end] += 1
        if end not in ("right", "error"):
            counted.failures.append(f"{case.name}: {end}: {words[:300]}")
    return counted


def peak_mib(run: Callable[[], Any]) -> float:
    """Largest resident memory of a job above what was resident before it, in a forked process (Linux), in MiB."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        gc.collect()
        before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the high-water mark begins anew
        try:
            run()
        finally:
            os.write(write, str(_status("VmHWM") - before).encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    found = float(os.read(read, 100))
    os.close(read)
    return found / 1024


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))
