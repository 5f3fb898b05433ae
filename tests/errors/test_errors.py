"""The one line of an error, and signals to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reid.errors import StopSignal, no_interrupt, one_line, stop_signals


def test_a_request_to_stop_is_deferred() -> None:
    stop, after = StopSignal(), False
    with pytest.raises(KeyboardInterrupt), stop.held():
        with stop.held():
            stop.receive(signal.SIGINT, None)
        after = stop.requested  # the inner block does not end it
    assert after
    with pytest.raises(KeyboardInterrupt):
        StopSignal().receive(signal.SIGINT, None)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_signals():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_the_second_signal_stops_at_once() -> None:
    code = (
        "import os, signal, time; from reid.errors import stop_signals\n"
        "with stop_signals() as stop, stop.held():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.requested, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "True\n")
    assert "press Ctrl-C again" in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_block(number: signal.Signals) -> None:
    reached = False
    with stop_signals() as stop:
        handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(KeyboardInterrupt), no_interrupt(), no_interrupt():
            os.kill(os.getpid(), number)
            reached = not stop.requested
        assert reached and stop.requested
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_second_interrupt_acts_at_once() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), no_interrupt():
        for number in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(number)
    assert reached == [0] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_an_interrupt_is_kept_where_the_block_fails() -> None:
    with pytest.raises(KeyboardInterrupt), no_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("a full disk")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_has_no_signals_to_defer() -> None:
    def handler_inside() -> object:
        with no_interrupt():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handler_inside).result() is signal.getsignal(signal.SIGINT)


def test_a_message_is_one_printable_line() -> None:
    text = one_line("a\nb\x1b[2J\ud800 ä " + "x" * 10_000)
    assert text.startswith(r"a\nb\x1b[2J\ud800 ä xxx") and text.isprintable()
    assert len(text) < 3000 and " ... " in text


def test_a_message_of_many_megabytes_is_cut_first() -> None:
    start = time.process_time()
    assert len(one_line("\n" * 2**25)) < 3000
    assert time.process_time() - start < 1
