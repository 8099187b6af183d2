"""The journal: what was answered is never asked again, whoever asks, and whatever dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.backends.scripted import Scripted
from cai.core.errors import Mistake, Permanent, Transient
from cai.core.types import Completion, Message, Request, Sampling, Usage
from cai.runs.budget import CallTally
from cai.runs.claims import Claims
from cai.runs.journal import WINDOW, Journal
from cai.runs.journaled import COMPLETION, Unasked, through_journal

ASKED = Request((Message("user", "hello"),), Sampling(temperature=1.0), seed=7)


class Counting(Scripted):
    def __init__(self, name: str = "counting") -> None:
        self.requests: list[Request] = []
        super().__init__(self._answer, name=name)

    def _answer(self, request: Request) -> str:
        self.requests.append(request)
        return f"answer {len(self.requests)}"


async def test_an_answer_is_found_again_in_the_same_journal_and_in_the_next(tmp_path: Path) -> None:
    model, tally = Counting(), CallTally()
    for _ in range(2):
        with Journal(tmp_path / "j.sqlite") as journal:
            answers = {(await through_journal(journal, model, tally).complete(ASKED)).text for _ in range(3)}
            assert answers == {"answer 1"}
    assert len(model.requests) == 1
    assert (tally.asked, tally.found) == (1, 5)


@pytest.mark.parametrize("many", [0, 100_000])
async def test_an_answer_is_found_again_when_it_has_reached_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr("cai.runs.journal.MANY", many)  # with and without keys in memory
    model = Counting()
    with Journal(tmp_path / "j.sqlite") as journal:
        for _ in range(2):
            assert (await through_journal(journal, model, CallTally()).complete(ASKED)).text == "answer 1"
            await asyncio.sleep(3 * WINDOW)
    assert len(model.requests) == 1


async def test_what_another_process_wrote_meanwhile_is_found(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.get(b"k" * 32) is None
        with Journal(tmp_path / "j.sqlite") as other:
            other.put(b"k" * 32, b"answer")
        await asyncio.sleep(2 * WINDOW)
        assert journal.get(b"k" * 32) == b"answer"


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, seed=8),
        replace(ASKED, plain=True),
        replace(ASKED, messages=(Message("system", "hello"),)),
        replace(ASKED, messages=(Message("system", "be kind"), *ASKED.messages)),
        replace(ASKED, sampling=replace(ASKED.sampling, temperature=0.5)),
        replace(ASKED, sampling=replace(ASKED.sampling, top_p=0.5)),
        replace(ASKED, sampling=replace(ASKED.sampling, max_tokens=9)),
        replace(ASKED, sampling=replace(ASKED.sampling, stop=("x",))),
    ],
)
async def test_everything_that_can_change_an_answer_is_in_the_key(tmp_path: Path, other: Request) -> None:
    model = Counting()
    with Journal(tmp_path / "j.sqlite") as journal:
        asking = through_journal(journal, model, CallTally())
        assert (await asking.complete(ASKED)).text != (await asking.complete(other)).text


async def test_another_model_is_another_key(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        for name in ("one", "two"):
            model = Counting(name)
            await through_journal(journal, model, CallTally()).complete(ASKED)
            assert len(model.requests) == 1


async def test_greedy_answers_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    model = Counting()
    greedy = replace(ASKED, sampling=Sampling(temperature=0.0))
    with Journal(tmp_path / "j.sqlite") as journal:
        for seed in range(3):
            await through_journal(journal, model, CallTally()).complete(replace(greedy, seed=seed))
    assert len(model.requests) == 1


async def test_equal_questions_in_flight_share_one_call(tmp_path: Path) -> None:
    model = Counting()
    model._seconds = 0.01
    with Journal(tmp_path / "j.sqlite") as journal:
        asking = through_journal(journal, model, CallTally())
        answers = await asyncio.gather(*(asking.complete(ASKED) for _ in range(20)))
    assert len(model.requests) == 1
    assert len(set(answers)) == 1


async def test_a_failure_is_never_stored(tmp_path: Path) -> None:
    outcomes = iter([Transient("http_503", "busy"), "better"])

    def script(_: Request) -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with Journal(tmp_path / "j.sqlite") as journal:
        asking = through_journal(journal, Scripted(script), CallTally())
        with pytest.raises(Transient):
            await asking.complete(ASKED)
        assert (await asking.complete(ASKED)).text == "better"


async def test_those_who_wait_for_a_failing_call_fail_with_it(tmp_path: Path) -> None:
    def script(_: Request) -> str:
        raise Permanent("filter", "no")

    with Journal(tmp_path / "j.sqlite") as journal:
        asking = through_journal(journal, Scripted(script, seconds=0.01), CallTally())
        outcomes = await asyncio.gather(*(asking.complete(ASKED) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, Permanent) for outcome in outcomes)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Completion,
        text=st.text(),
        thinking=st.none() | st.text(),
        finish=st.sampled_from(["stop", "length", "filter"]),
        usage=st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6)),
        logprobs=st.none() | st.lists(st.floats(-50, 0), max_size=4).map(tuple),
    )
)
def test_every_completion_comes_back_as_it_was(completion: Completion) -> None:
    async def there_and_back() -> list[Completion]:
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "j.sqlite")) as journal:
            asking = through_journal(journal, Scripted(lambda _: completion), CallTally())
            return [await asking.complete(ASKED), await asking.complete(ASKED)]

    assert asyncio.run(there_and_back()) == [completion, completion]


async def test_half_a_surrogate_pair_is_replaced_not_fatal(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        asking = through_journal(journal, Scripted(lambda _: "smile \ud83d and \U0001f600"), CallTally())
        assert (await asking.complete(ASKED)).text == "smile � and \U0001f600"


async def test_unasked_shows_what_is_missing(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        await through_journal(journal, Counting(), CallTally()).complete(ASKED)
        dry = through_journal(journal, Unasked(Counting()), CallTally())
        assert (await dry.complete(ASKED)).text == "answer 1"
        with pytest.raises(Permanent, match="unasked"):
            await dry.complete(replace(ASKED, seed=9))


def _fill(path: str, start: int) -> None:
    with Journal(Path(path)) as journal:
        for number in range(start, start + 300):
            journal.put(number.to_bytes(32, "big"), b"x" * 200)


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_fill, args=(str(path), start)) for start in (0, 200, 400)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with Journal(path) as journal:
        assert all(journal.get(number.to_bytes(32, "big")) for number in range(700))


def _write_and_die(path: str, told: str) -> None:
    journal = Journal(Path(path))
    for number in range(10_000):
        journal.put(number.to_bytes(32, "big"), b"x")
        if number == 500:
            time.sleep(0.5)
            Path(told).write_text("501 are committed")
    os.kill(os.getpid(), 9)


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    victim = multiprocessing.get_context("spawn").Process(
        target=_write_and_die, args=(str(path), str(tmp_path / "told"))
    )
    victim.start()
    victim.join(60)
    assert victim.exitcode == -9
    assert (tmp_path / "told").exists()
    with Journal(path) as journal:
        assert all(journal.get(number.to_bytes(32, "big")) for number in range(501))


def test_a_file_that_is_no_journal_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_text("precious notes, not a database" * 100)
    before = path.read_bytes()
    with pytest.raises(Mistake, match=r"j\.sqlite"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Mistake, match="newer"):
        Journal(path)


# --- Damage -----------------------------------------------------------------------------------------------------------


def filled(path: Path, answers: int = 60) -> dict[bytes, bytes]:
    """A closed journal of that many answers, as its file holds them."""
    held = {os.urandom(32): os.urandom(8) * 20 for _ in range(answers)}
    with Journal(path) as journal:
        for key, answer in held.items():
            journal.put(key, answer)
    return held


def test_a_flipped_byte_in_an_answer_counts_as_absent_and_is_said(tmp_path: Path) -> None:
    path, said = tmp_path / "j.sqlite", list[str]()
    held = filled(path, 1)
    ((key, answer),) = held.items()
    whole = bytearray(path.read_bytes())
    place = whole.find(answer)
    whole[place + 3] ^= 1
    path.write_bytes(whole)
    with Journal(path) as journal:
        journal.on_damage = said.append
        assert journal.get(key) is None
        assert "damaged" in said[0]
        journal.put(key, b"again")
        time.sleep(3 * WINDOW)
        assert journal.damaged == 0
    with Journal(path) as journal:
        assert journal.get(key) == b"again"


def test_a_byte_flipped_at_200_random_places_is_never_an_internal_error_nor_another_answer(tmp_path: Path) -> None:
    import random

    chance, path = random.Random(7), tmp_path / "j.sqlite"
    held = filled(path)
    whole, wrong, unreadable = path.read_bytes(), 0, 0
    for _ in range(200):
        broken, place = bytearray(whole), chance.randrange(len(whole))
        broken[place] ^= 1 << chance.randrange(8)
        for left_over in tmp_path.glob("j.sqlite-*"):
            left_over.unlink()
        path.write_bytes(broken)
        try:
            with Journal(path) as journal:
                found = {key: journal.get(key) for key in held}
        except Mistake:  # one line: the page it stands on cannot be read
            unreadable += 1
            continue
        assert all(found[key] in (None, held[key]) for key in held)
        wrong += any(answer is None for answer in found.values())
    assert wrong > 5, "some flips hit an answer, or this test shows nothing"
    assert unreadable > 5


async def test_a_journal_of_the_first_version_is_read_and_its_damaged_records_are_asked_again(tmp_path: Path) -> None:
    path, model = tmp_path / "j.sqlite", Counting()
    with Journal(path) as journal:
        await through_journal(journal, model, CallTally()).complete(ASKED)
    file = sqlite3.connect(path)
    file.executescript(
        "CREATE TABLE old (key BLOB PRIMARY KEY, answer BLOB); INSERT INTO old SELECT key, answer FROM answers;"
        "DROP TABLE answers; ALTER TABLE old RENAME TO answers; PRAGMA user_version = 1;"
    )
    file.close()
    with Journal(path) as journal:
        assert (await through_journal(journal, model, CallTally()).complete(ASKED)).text == "answer 1"
    assert len(model.requests) == 1
    file = sqlite3.connect(path)
    file.execute("UPDATE answers SET answer = x'7b00'")
    file.commit()
    file.close()
    with Journal(path) as journal:
        assert (await through_journal(journal, model, CallTally()).complete(ASKED)).text == "answer 2"
    with Journal(path) as journal:
        assert (await through_journal(journal, model, CallTally()).complete(ASKED)).text == "answer 2"


@pytest.mark.parametrize(
    "content", [b"not a database at all, whatever it says" * 40, b"SQLite format 3\0" + b"\0" * 4096]
)
def test_a_file_that_is_no_journal_is_one_line_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j.sqlite").write_bytes(content)
    with pytest.raises(Mistake, match="move"):
        Journal(tmp_path / "j.sqlite")


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    file = sqlite3.connect(path)
    file.executescript("CREATE TABLE places (url TEXT); INSERT INTO places VALUES ('x')")
    file.close()
    with pytest.raises(Mistake, match="not a journal of cai; move it away"):
        Journal(path)
    file = sqlite3.connect(path)
    assert [name for (name,) in file.execute("SELECT name FROM sqlite_master")] == ["places"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_that_disappears_while_it_is_used_is_noticed(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "j.sqlite"
    with pytest.raises(Mistake, match="removed or replaced while it was in use"), Journal(path) as journal:
        path.unlink()
        if replaced:
            path.write_bytes(b"")
        for number in range(100):
            journal.put(bytes([number]) * 32, b"answer")
            time.sleep(0.01)


# --- Who waits, and who asks ------------------------------------------------------------------------------------------


async def test_a_task_that_waits_for_anothers_call_is_not_cancelled_with_it(tmp_path: Path) -> None:
    begun, asked = asyncio.Event(), 0

    async def ask() -> Completion:
        nonlocal asked
        asked += 1
        begun.set()
        await asyncio.sleep(0.1)
        return Completion("done")

    with Journal(tmp_path / "j.sqlite") as journal:
        first = asyncio.create_task(journal.once(b"k" * 32, ask, COMPLETION))
        await begun.wait()
        others = [asyncio.create_task(journal.once(b"k" * 32, ask, COMPLETION)) for _ in range(3)]
        await asyncio.sleep(0.01)
        first.cancel()
        found = [answer.text for answer, _ in await asyncio.gather(*others)]
    assert found == ["done"] * 3
    assert asked == 2, "one of those that waited asks for all"


PAIR = """
import asyncio, sys, time
from pathlib import Path
from cai.core.types import Completion
from cai.runs.journal import Journal
from cai.runs.journaled import COMPLETION
asked = 0
async def ask():
    global asked
    asked += 1
    await asyncio.sleep(0.3)
    return Completion("done")
async def main():
    with Journal(Path(sys.argv[1])) as journal:
        while time.time() < float(sys.argv[2]): pass
        await asyncio.gather(*(journal.once(bytes([n]) * 32, ask, COMPLETION) for n in range(180)))
asyncio.run(main())
print(asked)
"""


def test_two_processes_that_ask_the_same_at_once_pay_once(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-c", PAIR, str(tmp_path / "j.sqlite"), str(time.time() + 2)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    asked = [int(process.communicate(timeout=60)[0]) for process in both]
    assert sum(asked) == 180, asked


CLAIM = """
import sys, time
from pathlib import Path
from cai.runs.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.take(b"k" * 32), flush=True)
time.sleep(60)
"""


def test_a_claim_holds_while_its_process_lives_even_where_its_number_is_used_again(tmp_path: Path) -> None:
    import subprocess
    import sys

    from cai.runs.claims import _SLOT, _place, _process

    claims = Claims(tmp_path / "c")
    with subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path / "c")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert not claims.take(b"k" * 32)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has reaped it
        assert claims.take(b"k" * 32)
    live, reused = _process(os.getppid()), _process(os.getppid()) ^ 1  # the same number, started at another time
    for owner, free in ((live, False), (reused, True)):
        assert claims._map is not None
        _SLOT.pack_into(claims._map, _place(b"k" * 32), b"k" * 8, owner)
        assert claims.take(b"k" * 32) is free
