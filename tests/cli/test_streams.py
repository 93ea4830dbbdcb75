"""Commands whose standard output or error is full, closed or read by nobody."""

import os
import subprocess
import sys

import pytest

from causalsat.cli.streams import Stream, guarded_streams, interrupts_arrive

BEGIN = "import sys; from causalsat.cli import main; main(sys.argv[1:])"


def command(*arguments, **streams):
    return subprocess.run([sys.executable, "-c", BEGIN, *arguments], text=True, check=False, **streams)


@pytest.fixture
def full():
    with open("/dev/full", "w") as device:
        yield device


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("arguments", [["catalog"], ["catalog", "--json"], ["--version"], ["--help"]])
def test_output_that_cannot_be_written_has_an_exit_code_and_one_message(arguments, full):
    done = command(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 74
    assert "standard output cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_pipe_that_nobody_reads_is_told_from_findings_of_a_check():
    read, write = os.pipe()
    os.close(read)
    done = command("catalog", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 74
    assert done.stderr.startswith("causalsat: standard output cannot be written (Broken pipe)")


def test_a_closed_output_is_an_error_and_no_file_takes_its_place():
    done = subprocess.run(
        f'"$PYTHON" -c "{BEGIN}" catalog >&-', shell=True, text=True, check=False, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 74
    assert "it is closed" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_log_that_cannot_be_written_changes_no_exit_code(full):
    assert command("catalog", "nosuch", stdout=subprocess.DEVNULL, stderr=full).returncode == 2
    assert command("catalog", stdout=subprocess.DEVNULL, stderr=full).returncode == 0


def test_streams_come_back_and_remember_the_first_error(capsys):
    before = sys.stdout, sys.stderr
    with guarded_streams() as output:
        print("written")
        assert output.error is None
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "written\n"
    closed = Stream(None, optional=False)
    with pytest.raises(OSError, match="closed"):
        closed.write("lost")
    assert closed.error is not None
    assert Stream(None, optional=True).write("dropped") == 7


INTERRUPTED = """
import signal, sys, time
from causalsat.cli.streams import interrupts_arrive
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background ignores

class Interrupted:  # an object whose finaliser is where Ctrl-C arrives
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        sum(range(10))

begin = time.monotonic()
try:
    with interrupts_arrive(again=float(sys.argv[1])):
        gone = Interrupted()
        del gone
        time.sleep(float(sys.argv[2]))
    time.sleep(0.5)
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - begin < 20)
"""


@pytest.mark.parametrize(("again", "work", "printed"), [(0.02, 30, "interrupted True\n"), (0.3, 0, "")])
def test_an_interrupt_that_comes_in_a_finaliser_ends_the_command_and_none_that_has_ended(again, work, printed):
    call = [sys.executable, "-c", INTERRUPTED, str(again), str(work)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_an_interrupt_while_the_interpreter_ends_leaves_no_trace():
    late = "import atexit, signal; atexit.register(signal.raise_signal, signal.SIGINT)"
    done = subprocess.run(
        [sys.executable, "-c", f"{late}; {BEGIN}", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_other_errors_of_finalisers_are_reported_as_before(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("broken")

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: seen.append(str(report.exc_value)))
    with interrupts_arrive():
        broken = Broken()
        del broken
    assert seen == ["broken"]
