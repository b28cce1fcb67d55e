"""What the ranks do in the tests of a rank's death, and what the others say of it."""

import time
from functools import partial

import torch
import torch.distributed as dist

from .ranks import CONTEXT, join_group, start_ranks

VICTIM = 1


class Meeting:
    """Where the ranks and the test wait for each other."""

    def __init__(self, rank, messages, killed):
        self._rank, self._messages, self._killed = rank, messages, killed

    def tell(self, what):
        self._messages.put((self._rank, what, time.monotonic()))

    def stay(self):
        """The victim has come to its end."""
        self.tell("waits")
        time.sleep(3600)

    def after_the_death(self):
        """Do nothing until the victim has been dead for a while."""
        self.tell("waits")
        self._killed.wait()
        time.sleep(0.5)


def pending_all_reduce(rank, size, meeting):
    """The victim never comes to the collective in which the others wait."""
    if rank == VICTIM:
        meeting.stay()
    meeting.tell("waits")
    dist.all_reduce(torch.ones(1000, device="hpu"))


def idle(rank, size, meeting):
    """The victim dies while nobody communicates; the next collective tells."""
    if rank == VICTIM:
        meeting.stay()
    meeting.after_the_death()
    dist.broadcast(torch.ones(4, device="hpu"), src=VICTIM)


def asynchronous(rank, size, meeting):
    if rank == VICTIM:
        meeting.stay()
    works = [dist.all_reduce(torch.ones(8, device="hpu"), async_op=True) for _ in range(3)]
    meeting.tell("waits")
    try:
        works[1].wait()
    finally:
        assert works[1].is_completed()
        assert not works[1].is_success()


def receiving(rank, size, meeting):
    """A receive from a third rank completes; one from the victim fails."""
    if rank == VICTIM:
        meeting.stay()
    other, got = 2 if rank == 0 else 0, torch.zeros(2, device="hpu")
    works = [dist.isend(torch.ones(2, device="hpu"), other), dist.irecv(got, other)]
    for work in works:
        work.wait()
    assert got.tolist() == [1, 1]
    meeting.tell("waits")
    dist.recv(got, VICTIM)


def in_a_graph(rank, size, meeting):
    from gaudi_emulator.graph import Graph

    x, graph = torch.ones(4, device="hpu"), Graph()
    graph.capture_begin()
    dist.all_reduce(x)
    graph.capture_end()
    graph.replay()
    torch.hpu.synchronize()
    if rank == VICTIM:
        meeting.stay()
    meeting.tell("waits")
    graph.replay()
    torch.hpu.synchronize()  # a replay is only queued


def smaller_group(rank, size, meeting):
    """A group without the victim goes on."""
    pair = dist.new_group([0, 2], backend="hccl")
    if rank == VICTIM:
        meeting.stay()
    meeting.after_the_death()
    x = torch.ones(1, device="hpu")
    dist.all_reduce(x, group=pair)
    assert x.item() == 2
    dist.all_reduce(x)


def _rank_main(case, rank, size, port, killed, messages):
    join_group(rank, size, port)
    meeting = Meeting(rank, messages, killed)
    try:
        case(rank, size, meeting)
        meeting.tell("no error")
    except BaseException as error:
        meeting.tell(f"{type(error).__name__}: {error}")


def kill_one_of(size, case, port, **environment):
    """Kill rank 1 by signal 9; what the others raise, and how many seconds after its death.

    Returns:
        rank -> (error, seconds, exit code), and the number of the killed process.
    """
    messages, killed = CONTEXT.Queue(), CONTEXT.Event()
    main = partial(_rank_main, case)
    ranks = start_ranks(main, size, port, killed, messages, **environment)
    try:
        for _ in ranks:
            _, state, _ = messages.get(timeout=120)
            assert state == "waits", state
        time.sleep(0.3)
        ranks[VICTIM].kill()
        died_at = time.monotonic()
        killed.set()
        errors = {}
        for _ in range(size - 1):
            rank, error, at = messages.get(timeout=30)
            errors[rank] = (error, at - died_at)
        for process in ranks:
            process.join(30)
        return {r: (*errors[r], ranks[r].exitcode) for r in errors}, ranks[VICTIM].pid
    finally:
        for process in ranks:
            if process.is_alive():
                process.kill()
