"""The spool and the recorder: what is on disk can be trusted, whatever happened to who wrote it."""

from __future__ import annotations

import errno
import json

import pytest

from jupyter_gpu_platform.runner.recorder import Recorder
from jupyter_gpu_platform.runner.spool import Spool


def lines(spool, seq=1):
    found = []
    while True:
        count, data = spool.read(seq, 50)
        if not count:
            return found
        found += data.splitlines(keepends=True)
        seq += count


def test_what_was_written_is_read_across_segments(tmp_path):
    spool = Spool(str(tmp_path), segment=40)
    written = [b"%020d\n" % n for n in range(20)]
    for line in written:
        spool.append([line])
    assert lines(spool) == written
    spool.trim(11)
    assert spool.first > 1
    assert lines(spool, 11) == written[10:]
    again = Spool(str(tmp_path))
    assert (again.first, again.next) == (spool.first, 21)
    spool.close()


def test_a_half_written_last_line_is_dropped(tmp_path):
    spool = Spool(str(tmp_path))
    spool.append([b"one\n", b"two\n"])
    spool.close()
    path = next(tmp_path.glob("*.ndjson"))
    path.write_bytes(path.read_bytes() + b'{"seq":3,"ty')
    again = Spool(str(tmp_path))
    assert again.next == 3
    again.append([b"three\n"])
    assert lines(again) == [b"one\n", b"two\n", b"three\n"]
    again.close()


class Disk(Spool):
    """A spool on a disk that can be full."""

    full = False

    def _write(self, data):
        if self.full:
            super()._write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._write(data)

    def release(self):
        super().release()
        self.released = True


def test_a_full_disk_holds_the_records_and_says_so_in_order(tmp_path):
    spool = Disk(str(tmp_path))
    recorder = Recorder(spool)
    recorder.text("stdout", "o", b"before\n")
    recorder.flush()
    spool.full = True
    recorder.text("stdout", "o", b"held\n")
    recorder.flush()
    assert recorder.blocked
    assert spool.released
    assert not recorder.retry()
    spool.full = False
    assert recorder.retry()
    recorder.exit(0, None, None)
    records = [json.loads(line) for line in lines(spool)]
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    assert [r.get("text", r["type"]) for r in records] == ["before\n", "held\n", "gap", "exit"]
    spool.close()


def test_nothing_follows_the_exit_record_on_a_disk_that_was_full(tmp_path):
    spool = Disk(str(tmp_path))
    recorder = Recorder(spool)
    spool.full = True
    recorder.exit(0, None, None)
    assert recorder.blocked
    spool.full = False
    assert recorder.retry()
    records = [json.loads(line) for line in lines(spool)]
    assert records[-1]["type"] == "exit"
    assert records[-1]["seq"] == recorder.last_seq == len(records)
    spool.close()


@pytest.mark.parametrize("cut", range(1, 4))
def test_characters_that_arrive_in_pieces_are_whole(tmp_path, cut):
    spool = Spool(str(tmp_path))
    recorder = Recorder(spool)
    data = "𝄞".encode()
    recorder.text("stdout", "fd", data[:cut])
    recorder.flush()
    recorder.text("stdout", "fd", data[cut:] + b"\xff\xc3")
    recorder.exit(0, None, None)
    records = [json.loads(line) for line in lines(spool)]
    assert "".join(r["text"] for r in records if r["type"] == "stream") == "𝄞\ufffd\ufffd"
    spool.close()
