"""Records of a job's output, made the messages they were: streams, displays, results, errors, comms.

Everything goes through the shell's own hooks, as if the code had run here, so that ``%%capture``, ``_``, ``Out``
and front ends behave as they do for a local cell. Used from the thread that runs the cell: a message's parent is
that thread's.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Mapping
from typing import Any

from IPython.core import page

from ..model.jobs import Reason
from . import failures

#: How long an error record is kept back, seconds. The last one of a failing cell becomes the exception that the magic
#: raises, and IPython shows that one; one in mid-cell (`display(bad)`) shows as soon as the next record or this comes.
HOLD = 0.7
#: From IPython 9 on the shell keeps, for as long as it lives, all text that a cell shows. Of a far cell's text it keeps
#: this much, in characters: what a job printed for a day is in its output, and must not fill the kernel's memory.
REMEMBERED = 2**20


class FarResult:
    """The value of a job's last expression, by its representation: the value itself stayed where it was made."""

    def __init__(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._data, self._metadata = data, metadata

    def __repr__(self) -> str:
        return str(self._data.get("text/plain", "<a result without a text form>"))

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._data, self._metadata

    def __reduce__(self) -> Any:
        # A picture of a value, sent to a job in its place, would surprise there.
        raise TypeError("its value stayed in the job: give it a name there, and that to --out")


class Replay:
    """Replays records into *shell* in the order in which they come."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._stream = ""
        #: characters of text so far
        self._written = 0
        self._held: dict[str, Any] | None = None
        self._held_since = 0.0
        #: the newest error record, and whether it was shown
        self.error: dict[str, Any] | None = None
        self._comms = _Comms()

    def record(self, record: dict[str, Any]) -> None:
        """Show one record."""
        kind = record.get("type")
        if kind in ("exit", "eof", "input", "input_reply", "values"):
            return
        self.release()
        if kind == "stream":
            self._write(record["name"], record["text"])
            return
        self.flush()
        match kind:
            case "display":
                self._display(record)
            case "clear":
                self._shell.display_pub.clear_output(wait=record.get("wait", False))
            case "result":
                # The shell's own one while a cell runs, and that of a surrounding `%%capture`.
                sys.displayhook(FarResult(record["data"], record.get("metadata") or {}))
            case "error":
                self.error = self._held = record
                self._held_since = time.monotonic()
            case "comm":
                self._comms.replay(record)
            case "payload":
                self._hand_on(record["payload"])
            case "gap":
                self._write("stderr", f"[output is missing here: {record.get('message', 'no reason is known')}]\n")
            case _:
                self._write("stderr", f"[a record of the unknown type {kind!r} can't be shown by this version]\n")

    def _write(self, name: str, text: str) -> None:
        if self._stream and name != self._stream:
            # Each stream buffers for itself: without this the two would change places.
            self.flush()
        self._stream = name
        (sys.stderr if name == "stderr" else sys.stdout).write(text)
        self._written += len(text)
        if self._written > REMEMBERED:
            self._forget(text)

    def _forget(self, text: str) -> None:
        """Take the text that was written last out of what the shell keeps, if it is there."""
        cells = getattr(self._shell.history_manager, "outputs", {})
        newest = next(reversed(cells.values()), ())
        kept = newest[-1].bundle.get("stream") if newest else None
        if kept and kept[-1] is text:
            kept.pop()

    def _display(self, record: dict[str, Any]) -> None:
        self._shell.display_pub.publish(
            data=record["data"],
            metadata=record.get("metadata") or {},
            transient=record.get("transient") or {},
            update=record.get("update", False),
        )

    def _hand_on(self, payload: dict[str, Any]) -> None:
        """Do what goes with the cell's reply: `print?` shows its page, `%load` fills the next cell."""
        if getattr(self._shell, "kernel", None) is not None:
            self._shell.payload_manager.write_payload(payload)
        elif payload.get("source") == "page":
            page.page(payload.get("data") or {}, start=payload.get("start", 0))
        elif payload.get("source") == "set_next_input":
            self._shell.set_next_input(payload.get("text", ""), replace=payload.get("replace", False))

    def flush(self) -> None:
        """Hand over the text that was written."""
        if self._stream:
            (sys.stderr if self._stream == "stderr" else sys.stdout).flush()

    @property
    def hold_left(self) -> float | None:
        """Seconds until a kept back error is to be released; None where there is none."""
        if self._held is None:
            return None
        return max(0.0, self._held_since + HOLD - time.monotonic())

    def release(self) -> None:
        """Show the error that was kept back, if there is one."""
        held, self._held = self._held, None
        if held is not None:
            self._shell._showtraceback(
                type(str(held["ename"]), (Exception,), {}), held.get("evalue", ""), list(held.get("traceback", ()))
            )

    def exception(self, reason: Reason | None = None) -> BaseException | None:
        """Return what the code raised, made of the newest error record; shown by IPython only if not yet shown here.

        :param reason: why the job ended. Where it tells of another error than the record, what was raised had been
            put out as text (an exception group, a usage error), and only its name and message are left to raise.
        """
        raised = reason.details if reason is not None and reason.code == "error" else {}
        if raised.get("ename") and not self._ends_with(raised):
            self.release()
            last = {"traceback": self.error.get("traceback", ())} if self.error else {}
            return failures.from_record({**raised, **last}, shown=True)
        if self.error is None:
            return None
        shown = self._held is None
        self._held = None
        return failures.from_record(self.error, shown=shown)

    def _ends_with(self, raised: Mapping[str, object]) -> bool:
        error = self.error
        # A reason keeps only the beginning of a long text.
        return error is not None and all(
            str(error.get(name, "")).startswith(str(raised.get(name) or "")) for name in ("ename", "evalue")
        )


class _Comms:
    """Widgets of a job: their comms are opened here under the ids they have there."""

    def replay(self, record: dict[str, Any]) -> None:
        try:
            import comm
        except ImportError:  # a shell without a kernel has no widgets either
            return
        content, metadata = record["content"], record.get("metadata") or {}
        buffers = [base64.b64decode(buffer) for buffer in record.get("buffers") or ()]
        manager = comm.get_comm_manager()
        comm_id, data = content["comm_id"], content.get("data") or {}
        if record["msg_type"] == "comm_open":
            name, module = content.get("target_name", ""), content.get("target_module")
            # Not primary: that would send its own comm_open with other content.
            opened = comm.create_comm(comm_id=comm_id, target_name=name, target_module=module, primary=False)
            manager.register_comm(opened)
            opened.publish_msg(
                "comm_open", data=data, metadata=metadata, buffers=buffers, target_name=name, target_module=module
            )
            return
        known = manager.comms.get(comm_id)
        if known is None:
            return
        if record["msg_type"] == "comm_close":
            known.close(data=data, metadata=metadata, buffers=buffers)
        else:
            known.send(data=data, metadata=metadata, buffers=buffers)
