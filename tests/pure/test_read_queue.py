"""What the pager does next, decided by hand: no thread, no file, no clock."""

import random

import pytest

from cadcpp.errors import ModelError
from cadcpp.residency.layout import Extent
from cadcpp.residency.read_queue import DEPTH, ReadQueue, Step

SIZE, N_LAYERS = 10, 3
STREAMED = [Extent(0, i * SIZE, (i + 1) * SIZE, i) for i in range(N_LAYERS)]
KEPT = Extent(1, 0, 3 * SIZE, 1)


def queue(*kept: Extent, room: int = 2 * SIZE, ahead: bool = True, streamed: list[Extent] = STREAMED) -> ReadQueue:
    """Streams one chunk a layer; ``kept`` is to stay."""
    reads = sorted([*((c, False) for c in streamed), *((c, True) for c in kept)], key=lambda read: read[0].layer)
    return ReadQueue(lambda: reads, N_LAYERS, room, ahead=ahead)


def go(reads: ReadQueue, most: int = 99) -> list[Step]:
    """Do what the queue decides until it waits; the steps."""
    steps: list[Step] = []
    while len(steps) < most and (step := reads.next_step()) != "wait":
        steps.append(step)
        do(reads, step)
    return steps


def do(reads: ReadQueue, step: Step) -> None:
    if step == "ask":
        reads.ask()
    elif step == "take":
        reads.take()
    else:
        reads.free(reads.pop_passed())


def begin(reads: ReadQueue) -> None:
    reads.start_pass()
    reads.want(0)


def test_the_first_pass_is_read_before_it_begins_up_to_the_window() -> None:
    reads = queue()
    assert go(reads) == ["ask", "ask", "take", "take"]
    begin(reads)
    assert reads.ready
    reads.want(2)
    assert not reads.ready
    assert go(reads) == ["ask", "take"]  # compute waits for it: the window does not hold it up
    assert reads.ready


def test_nothing_is_begun_before_its_pass_without_ahead() -> None:
    reads = queue(ahead=False)
    assert reads.next_step() == "wait"
    begin(reads)
    assert not reads.ready
    for layer in range(N_LAYERS):
        reads.want(layer)
        go(reads)
        assert reads.ready
        reads.layer_done(layer)
    reads.end_pass()
    assert go(reads) == ["drop"]


def test_room_is_free_only_when_it_has_been_dropped() -> None:
    reads = queue()
    go(reads)
    begin(reads)
    assert reads.next_step() == "wait"
    reads.layer_done(0)
    assert reads.next_step() == "drop"
    assert reads.pop_passed() == [STREAMED[0]]
    assert reads.next_step() == "wait"
    reads.free([STREAMED[0]])
    assert reads.next_step() == "ask"


def test_what_stays_needs_no_room_and_is_read_once() -> None:
    reads = queue(KEPT, room=SIZE)
    assert reads.next_step() == "ask" and reads.ask() == STREAMED[0]
    assert reads.next_step() == "take"
    reads.take()
    begin(reads)
    reads.layer_done(0)
    reads.free(reads.pop_passed())
    assert reads.next_step() == "ask" and reads.ask() == STREAMED[1]
    assert reads.next_step() == "ask" and reads.ask() == KEPT  # though the window is full
    assert reads.next_step() == "take"


def test_at_most_a_few_chunks_are_asked_for_at_once() -> None:
    reads = queue(room=100 * SIZE, streamed=[Extent(0, i, i + 1, 0) for i in range(2 * DEPTH)])
    assert go(reads, DEPTH + 1) == ["ask"] * DEPTH + ["take"]


def test_what_stays_is_not_asked_for_again_while_it_is_on_its_way() -> None:
    reads = queue(KEPT, streamed=[])
    begin(reads)
    assert reads.next_step() == "ask"
    reads.ask()
    assert reads.next_step() == "take"  # though the next pass is planned by now, and it is missing still
    assert [read.chunk for read in reads.asked] == [KEPT]


def test_a_pass_that_needs_nothing_is_ready_when_that_is_known() -> None:
    reads = queue(streamed=[])
    begin(reads)
    assert not reads.ready
    assert reads.next_step() == "wait" and reads.ready


def test_a_pass_cut_short_leaves_nothing_behind() -> None:
    reads = queue(room=SIZE)
    begin(reads)
    go(reads)
    begin(reads)  # nothing of layers 1 and 2 is read for the pass before
    assert go(reads) == ["drop", "ask", "take"]
    assert reads.ready


def test_what_cannot_be_read_ends_the_pass_and_the_next_one_tries_again() -> None:
    reads, error = queue(room=3 * SIZE), ModelError("broken")
    begin(reads)
    assert [reads.next_step(), reads.ask(), reads.next_step(), reads.ask()] == ["ask", STREAMED[0], "ask", STREAMED[1]]
    reads.give_up(error)
    assert reads.error is error and not reads.ready
    assert reads.next_step() == "wait"
    begin(reads)
    assert reads.error is None
    assert go(reads)[:3] == ["ask"] * 3  # the room of what was not read is free
    assert reads.ready


def test_a_pause_lets_what_is_asked_for_finish_and_then_plans_anew() -> None:
    reads = queue(room=3 * SIZE)
    begin(reads)
    reads.next_step()
    reads.ask()
    reads.paused = True
    assert go(reads) == ["take"]
    reads.resume()
    assert not reads.ready  # until it is known what is needed now
    assert go(reads) == ["ask", "ask", "take", "take"]  # what the window has is not read again


def test_a_smaller_room_holds_from_then_on() -> None:
    reads = queue(room=3 * SIZE)
    reads.room = SIZE
    assert go(reads) == ["ask", "take"]


@pytest.mark.parametrize("streamed", [STREAMED, []], ids=["streamed", "nothing streamed"])
@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_idle_just_where_the_next_step_is_to_wait(streamed: list[Extent], ahead: bool, seed: int) -> None:
    """So that nobody is woken for nothing; a plan that is to be made is something to do."""
    rng, kept = random.Random(seed), [KEPT]
    order = [*((chunk, False) for chunk in streamed), (KEPT, True)]
    reads = ReadQueue(lambda: [read for read in order if not read[1] or kept], N_LAYERS, 2 * SIZE, ahead=ahead)
    seen, waits = set[str](), 0
    for _ in range(40):
        begin(reads)
        for layer in range(N_LAYERS):
            reads.want(layer)
            for _ in range(rng.randrange(9)):
                idle, planned = reads.idle, reads.planned
                step = reads.next_step()
                seen.add(step)
                waits += idle
                assert not idle if planned != reads.planned else idle == (step == "wait")
                if step == "take" and reads.asked[0].stays:
                    kept.clear()
                if step != "wait":
                    do(reads, step)
            reads.layer_done(layer)
        reads.end_pass()
    assert waits > 9 and seen == {"ask", "take", "wait", *(["drop"] if streamed else [])}
