"""What waits to be shown is bounded by its size, and the reader goes on as soon as there is room."""

from __future__ import annotations

import threading

from jupyter_gpu_platform.notebook.following import _WINDOW, _Room, _size


def test_the_reader_waits_for_room_and_a_record_of_any_size_gets_in_alone() -> None:
    room, let_in = _Room(), threading.Event()
    room.take(2 * _WINDOW)
    reader = threading.Thread(target=lambda: (room.take(10), let_in.set()))
    reader.start()
    assert not let_in.wait(0.2)
    room.give_back(2 * _WINDOW)
    assert let_in.wait(10)
    reader.join()


def test_nobody_waits_for_a_cell_that_is_over() -> None:
    room = _Room()
    room.take(_WINDOW)
    reader = threading.Thread(target=room.take, args=(10,))
    reader.start()
    room.over()
    reader.join(10)
    assert not reader.is_alive()


def test_pictures_count() -> None:
    assert _size({"type": "display", "data": {"image/png": "x" * 10**6}}) > 10**6
    assert _size({"type": "stream", "name": "stdout", "text": "x" * 10**6}) > 10**6
    assert _size({"type": "clear", "wait": False}) > 0
