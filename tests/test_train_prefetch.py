"""Batches ahead of time: in order, bounded, with their errors in place."""

import threading
import time

import pytest
import torch

from unclip.train.prefetch import Prefetch


def test_the_order_is_the_jobs_whichever_thread_is_faster():
    def make(job: int) -> int:
        time.sleep(0.003 * (job * 7 % 5))
        return job * job

    with Prefetch(make, range(40), workers=4, ahead=6) as batches:
        assert list(batches) == [job * job for job in range(40)]


def test_no_more_than_so_many_are_made_ahead():
    made = []
    with Prefetch(lambda job: made.append(job), range(100), workers=2, ahead=3) as batches:
        for taken in range(1, 10):
            next(batches)
            time.sleep(0.005)
            assert taken <= len(made) <= taken + 3


def test_an_error_comes_at_its_place():
    def make(job: int) -> int:
        if job == 3:
            raise OSError("the picture is gone")
        return job

    with Prefetch(make, range(10), workers=2, ahead=8) as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="the picture is gone"):
            next(batches)


def test_the_wait_is_measured():
    with Prefetch(lambda job: time.sleep(0.03), range(3), ahead=1) as batches:
        for _ in batches:
            pass
        assert 0.05 < batches.waited < 1


def test_leaving_ends_the_threads_though_the_jobs_never_end():
    before = threading.active_count()
    with Prefetch(lambda job: job, iter(int, 1), workers=3, ahead=5) as batches:
        next(batches)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_a_batch_is_made_with_one_thread_and_the_network_keeps_its_own():
    threads = torch.get_num_threads()
    with Prefetch(lambda job: torch.get_num_threads(), range(4), workers=2) as batches:
        assert list(batches) == [1, 1, 1, 1]
    assert torch.get_num_threads() == threads
