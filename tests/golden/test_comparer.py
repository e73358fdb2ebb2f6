"""The comparer finds each of the differences that a seed put into a transcript, and nothing where there is none."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

from .kernels import Kernel, kernel
from .transcripts import NORMALISED, STREAMS, TEXT, TIMES, Transcript, differences

#: A cell with some of everything.
CELL = r"""
import sys, base64
from IPython.display import clear_output, display, update_display
from comm import create_comm
for i in range(4):
    print("line", i, flush=True)
print("grün\r 50%\r100%", "\x1b[32mgreen\x1b[0m", flush=True)
print("to stderr", file=sys.stderr, flush=True)
clear_output(wait=True)
bundle = {"text/plain": "plain", "text/html": "<b>x</b>", "application/json": {"a": [1, 0.5]}}
display(bundle, raw=True, metadata={"text/html": {"isolated": True}}, display_id="mine")
update_display("later", display_id="mine")
handle = display("named at random", display_id=True)
handle.update("updated")
first = create_comm(target_name="one", data={"x": 1}, metadata={"version": "2"}, buffers=[b"\x00\x01", b"\x02"])
second = create_comm(target_name="two", data={})
second.send({"y": 2})
first.close()
display(object())
get_ipython().displayhook([1, 2])
get_ipython().set_next_input("next")
print("last words", flush=True)
def inner():
    raise KeyError("inner")
def outer():
    try:
        inner()
    except KeyError as error:
        raise ValueError("outer") from error
outer()
"""

Mutation = Callable[[Transcript, random.Random], None]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def of(run: Transcript, *kinds: str) -> list[dict[str, Any]]:
    return [message for message in run.messages if message["type"] in kinds]


def texts(run: Transcript) -> list[dict[str, Any]]:
    return [message["content"] for message in of(run, "stream") if "line" in message["content"]["text"]]


def some_text(run: Transcript, chance: random.Random) -> tuple[dict[str, Any], list[str]]:
    content = chance.choice(texts(run))
    return content, content["text"].splitlines(keepends=True)


def errors_of(run: Transcript) -> tuple[dict[str, Any], dict[str, Any]]:
    (error,) = of(run, "error")
    return error["content"], run.reply


@mutation
def a_line_dropped(run, chance):
    content, lines = some_text(run, chance)
    lines.pop(chance.randrange(len(lines)))
    content["text"] = "".join(lines)


@mutation
def a_line_doubled(run, chance):
    content, lines = some_text(run, chance)
    content["text"] = "".join([*lines, lines[-1]])


@mutation
def a_line_moved(run, chance):
    contents = texts(run)
    joined = "".join(content["text"] for content in contents).splitlines(keepends=True)
    line = joined.pop(chance.randrange(len(joined) - 1))
    contents[0]["text"] = "".join([*joined, line])
    for content in contents[1:]:
        content["text"] = ""


@mutation
def a_message_dropped(run, chance):
    del run.messages[chance.randrange(len(run.messages))]


@mutation
def a_message_doubled(run, chance):
    position = chance.randrange(len(run.messages))
    run.messages.insert(position, copy.deepcopy(run.messages[position]))


@mutation
def two_messages_exchanged(run, chance):
    others = [position for position, message in enumerate(run.messages) if message["type"] != "stream"]
    first, second = sorted(chance.sample(others, 2))
    run.messages[first], run.messages[second] = run.messages[second], run.messages[first]


@mutation
def text_moved_behind_a_display(run, chance):
    run.messages.append(run.messages.pop(run.messages.index(of(run, "stream")[0])))


@mutation
def a_MIME_type_lost(run, chance):
    data = of(run, "display_data")[0]["content"]["data"]
    del data[chance.choice(sorted(data))]


@mutation
def a_MIME_type_added(run, chance):
    of(run, "display_data")[0]["content"]["data"]["text/markdown"] = "x"


@mutation
def JSON_data_made_text(run, chance):
    of(run, "display_data")[0]["content"]["data"]["application/json"] = '{"a": [1, 0.5]}'


@mutation
def a_number_of_another_type(run, chance):
    of(run, "display_data")[0]["content"]["data"]["application/json"]["a"][0] = 1.0


@mutation
def an_update_turned_into_a_display(run, chance):
    chance.choice(of(run, "update_display_data"))["type"] = "display_data"


@mutation
def a_display_turned_into_an_update(run, chance):
    of(run, "display_data")[-1]["type"] = "update_display_data"


@mutation
def a_display_turned_into_a_result(run, chance):
    of(run, "display_data")[-1]["type"] = "execute_result"


@mutation
def metadata_of_a_display_lost(run, chance):
    of(run, "display_data")[0]["content"]["metadata"] = {}


@mutation
def a_display_id_lost(run, chance):
    of(run, "display_data")[0]["content"]["transient"] = {}


@mutation
def a_display_id_changed(run, chance):
    of(run, "update_display_data")[0]["content"]["transient"]["display_id"] = "other"


@mutation
def a_random_display_id_changed_in_its_update_alone(run, chance):
    of(run, "update_display_data")[1]["content"]["transient"]["display_id"] = "0123456789abcdef" * 2


@mutation
def a_stream_exchanged(run, chance):
    content = chance.choice(of(run, "stream"))["content"]
    content["name"] = "stderr" if content["name"] == "stdout" else "stdout"


@mutation
def a_carriage_return_lost(run, chance):
    for message in of(run, "stream"):
        message["content"]["text"] = message["content"]["text"].replace("\r", "\n")


@mutation
def a_colour_lost(run, chance):
    for message in of(run, "stream"):
        message["content"]["text"] = message["content"]["text"].replace("\x1b[32m", "")


@mutation
def a_character_replaced(run, chance):
    for message in of(run, "stream"):
        message["content"]["text"] = message["content"]["text"].replace("ü", "�")


@mutation
def the_last_newline_lost(run, chance):
    content = of(run, "stream")[-1]["content"]
    content["text"] = content["text"].removesuffix("\n")


@mutation
def the_wait_of_clear_output_changed(run, chance):
    (message,) = of(run, "clear_output")
    message["content"]["wait"] = not message["content"]["wait"]


@mutation
def clear_output_dropped(run, chance):
    run.messages = [message for message in run.messages if message["type"] != "clear_output"]


@mutation
def the_execution_count_of_the_result_changed(run, chance):
    (message,) = of(run, "execute_result")
    message["content"]["execution_count"] += 1


@mutation
def the_execution_count_of_the_reply_changed(run, chance):
    run.reply["execution_count"] += 1


@mutation
def the_echo_of_the_cell_changed(run, chance):
    (message,) = of(run, "execute_input")
    message["content"]["code"] += "\n"


@mutation
def status_ok_for_error(run, chance):
    run.reply["status"] = "ok"


@mutation
def an_error_that_is_not_shown(run, chance):
    run.messages = [message for message in run.messages if message["type"] != "error"]


@mutation
def an_error_shown_as_text(run, chance):
    for message in of(run, "error"):
        text = "\n".join(message["content"]["traceback"])
        message |= {"type": "stream", "content": {"name": "stderr", "text": text}}


@mutation
def another_name_of_the_error(run, chance):
    chance.choice(errors_of(run))["ename"] = "Exception"


@mutation
def another_message_of_the_error(run, chance):
    chance.choice(errors_of(run))["evalue"] += "."


@mutation
def a_frame_missing_in_the_traceback(run, chance):
    traceback = chance.choice(errors_of(run))["traceback"]
    frames = [position for position, line in enumerate(traceback) if "inner()" in line or "outer()" in line]
    del traceback[chance.choice(frames)]


@mutation
def a_frame_of_ours_in_the_traceback(run, chance):
    chance.choice(errors_of(run))["traceback"].insert(1, "File magic.py, in gpu_run")


@mutation
def a_line_number_changed_in_the_traceback(run, chance):
    error, _ = errors_of(run)
    position = next(n for n, line in enumerate(error["traceback"]) if "line " in line)
    error["traceback"][position] = error["traceback"][position].replace("line ", "line 1", 1)


@mutation
def a_buffer_lost(run, chance):
    of(run, "comm_open")[0]["buffers"].pop(chance.randrange(2))


@mutation
def two_buffers_exchanged(run, chance):
    of(run, "comm_open")[0]["buffers"].reverse()


@mutation
def a_comm_moved(run, chance):
    run.messages.append(run.messages.pop(run.messages.index(of(run, "comm_msg")[0])))


@mutation
def a_comm_message_to_another_comm(run, chance):
    of(run, "comm_msg")[0]["content"]["comm_id"] = of(run, "comm_open")[0]["content"]["comm_id"]


@mutation
def a_comm_that_is_not_closed(run, chance):
    run.messages = [message for message in run.messages if message["type"] != "comm_close"]


@mutation
def metadata_of_a_message_lost(run, chance):
    of(run, "comm_open")[0]["metadata"] = {}


@mutation
def the_target_of_a_comm_changed(run, chance):
    of(run, "comm_open")[0]["content"]["target_name"] = "jupyter.widget"


@mutation
def a_payload_dropped(run, chance):
    run.reply["payload"] = []


@mutation
def a_payload_that_replaces_the_cell(run, chance):
    run.reply["payload"][0]["replace"] = True


@mutation
def idle_twice(run, chance):
    run.messages.append(copy.deepcopy(run.messages[-1]))


@pytest.fixture(scope="module")
def runs(platform_env, tmp_path_factory) -> tuple[Transcript, Transcript]:
    """The cell as two kernels run it."""
    home = tmp_path_factory.mktemp("comparer")

    def run(one: Kernel) -> Transcript:
        return one.run(CELL.strip("\n"))

    with kernel(platform_env, home / "one") as first, kernel(platform_env, home / "two") as second:
        return run(first), run(second)


def test_two_runs_of_a_cell_are_equal(runs):
    assert differences(*runs) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found(name, seed, runs):
    here, there = runs[0], copy.deepcopy(runs[1])
    MUTATIONS[name](there, random.Random(seed))
    assert repr(there) != repr(runs[1]), "the mutation changed nothing"
    assert differences(here, there)


LINES = ["a line dropped", "a line doubled", "a line moved", "a stream exchanged", "an update turned into a display"]


@pytest.mark.parametrize("marks", [{STREAMS}, {TEXT}, {TIMES}], ids=str)
@pytest.mark.parametrize("name", [*LINES, "a MIME type lost", "status ok for error", "a comm moved"])
def test_a_marked_cell_is_still_compared(name, marks, runs):
    here, there = runs[0], copy.deepcopy(runs[1])
    assert differences(here, there, frozenset(marks)) == []
    MUTATIONS[name](there, random.Random(1))
    assert differences(here, there, frozenset(marks))


def test_a_random_name_changed_everywhere_is_no_difference(runs):
    """The other side of the rule: which name was drawn is all that it lets pass."""
    here, there = runs[0], copy.deepcopy(runs[1])
    drawn = of(there, "update_display_data")[1]["content"]["transient"]["display_id"]
    for message in of(there, "display_data", "update_display_data"):
        if message["content"]["transient"].get("display_id") == drawn:
            message["content"]["transient"]["display_id"] = "0123456789abcdef" * 2
    assert there != runs[1]
    assert differences(here, there) == []


def test_each_rule_has_a_reason():
    assert all(len(rule.reason) > 10 for rule in NORMALISED)
    assert len({rule.name for rule in NORMALISED}) == len(NORMALISED)
