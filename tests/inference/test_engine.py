"""Tests of the local engine, with workers that run no file: order, bounds, errors, and the end of everything."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from vit_zoo.errors import InputError, Stopped
from vit_zoo.files.image_list import ImageRef
from vit_zoo.inference.engine import run_chunks
from vit_zoo.inference.worker import Chunk, Rows, chunk_size, chunks


class Recorder:
    """A factory of workers that counts them, and the chunks that were begun."""

    def __init__(self, act=lambda chunk: None):
        self.act, self.workers, self.begun, self.closed, self.lock = act, [], [], [], threading.Lock()

    def open(self):
        with self.lock:
            self.workers.append(threading.current_thread().name)
        outer = self

        class One:
            def __call__(self, chunk):
                with outer.lock:
                    outer.begun.append(chunk.number)
                outer.act(chunk)
                return Rows(chunk.number, chunk.images, np.zeros((len(chunk.images), 2), "<i4"), {})

            def close(self):
                outer.closed.append(self)

        return One()


def listed(count):
    return [Chunk(i, (ImageRef(f"{i}", f"{i}"),)) for i in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_in_order_with_a_worker_in_each_thread(workers):
    recorder = Recorder(lambda chunk: time.sleep(0.002 * (-chunk.number % 4)))
    rows = list(run_chunks(iter(listed(20)), recorder.open, workers))
    assert [one.number for one in rows] == list(range(20))
    assert 1 <= len(recorder.workers) == len(set(recorder.workers)) <= workers
    assert len(recorder.closed) == len(recorder.workers)
    assert sorted(recorder.begun) == list(range(20))


def test_chunks_are_read_as_they_are_needed():
    """With two workers, at most four chunks are in memory besides the one that the caller has."""
    read = []

    def source():
        for chunk in listed(50):
            read.append(chunk.number)
            yield chunk

    with closing(run_chunks(source(), Recorder().open, 2)) as results:
        for rows in results:
            assert len(read) <= rows.number + 1 + 4


def test_the_error_of_a_worker_stops_everything():
    def act(chunk):
        if chunk.number == 5:
            raise Stopped("took more than 15 s")

    recorder, done = Recorder(act), []
    with pytest.raises(Stopped, match="took more than 15 s"):
        done.extend(rows.number for rows in run_chunks(listed(100), recorder.open, 2))
    assert done == [0, 1, 2, 3, 4]
    assert max(recorder.begun) < 15
    assert len(recorder.closed) == len(recorder.workers)


def test_a_worker_that_cannot_be_opened():
    def fail():
        raise InputError("no such file")

    with pytest.raises(InputError, match="no such file"):
        list(run_chunks(listed(3), fail, 2))


def test_closing_stops_the_workers():
    """A worker that is at work is told so, and no chunk is begun afterwards."""
    released = threading.Event()

    class Slow:
        def __call__(self, chunk):
            if chunk.number:
                assert released.wait(20)
            return Rows(chunk.number, (), np.zeros((0, 2), "<i4"), {})

        def close(self):
            released.set()

    results = run_chunks(listed(100), Slow, 1)
    assert next(results).number == 0
    results.close()
    assert released.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vitzoo-worker")]


def test_no_images_and_no_workers():
    assert list(run_chunks([], Recorder().open, 2)) == []
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        run_chunks([], Recorder().open, 0)


def test_chunks_are_cut_by_position():
    images = [ImageRef(f"{i}", f"{i}") for i in range(70)]
    cut = list(chunks(images, 32))
    assert [(one.number, len(one.images)) for one in cut] == [(0, 32), (1, 32), (2, 6)]
    assert [image for one in cut for image in one.images] == images
    assert chunk_size(8191) * 8 == chunk_size(8192)
