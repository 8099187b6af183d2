"""A lock between processes: one at a time, and free again when its holder is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from cai.runs.lock import Lock

HOLDS = """
import sys, time
from pathlib import Path
from cai.runs.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
print(time.time())
"""


def test_of_many_one_at_a_time(tmp_path: Path) -> None:
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        lock = Lock(tmp_path / "l")
        for _ in range(50):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1
        lock.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_another_process_waits_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    for kill in (False, True):
        command = [sys.executable, "-c", HOLDS, str(tmp_path / "l"), "60" if kill else "0.4"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            if kill:
                process.kill()
            with Lock(tmp_path / "l"):
                mine = time.time()
            if not kill:
                assert float(process.stdout.readline()) <= mine + 0.2
                assert process.wait() == 0


def test_a_file_that_was_removed_locks_nobody_out_and_nobody_in(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "l"), Lock(tmp_path / "l")
    with first:
        pass
    (tmp_path / "l").unlink()
    entered = threading.Event()

    def enter() -> None:
        with first:
            entered.set()

    with second:
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.2)
    thread.join(5)
    assert entered.is_set()
