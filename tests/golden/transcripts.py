"""What a cell put out, and the comparer that says whether two runs of it put out the same.

Whatever is not in the table `NORMALISED` counts: order, types, metadata, buffers, numbers, white space.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: Marks that a cell may carry; each switches on the rule of its name in `NORMALISED`.
TIMES, STREAMS, TEXT, DEPTH = "times", "streams", "text", "depth"


@dataclass
class Transcript:
    """A cell's iopub messages in order, and its reply; `own` names what belongs to the one kernel that ran it."""

    messages: list[dict[str, Any]]
    reply: dict[str, Any]
    #: this kernel's own words (its request's id, its directory, …), and what to call them
    own: dict[str, str] = field(default_factory=dict)

    def tree(self) -> dict[str, Any]:
        return {"messages": self.messages, "reply": self.reply}

    def contents(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["type"] == kind]

    def text(self, name: str = "stdout") -> str:
        return "".join(content["text"] for content in self.contents("stream") if content["name"] == name)


Tree = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One thing in which two equal runs differ.

    :param mark: only cells that carry this mark are treated so; all cells when empty.
    """

    name: str
    reason: str
    apply: Callable[[Tree, dict[str, str]], Tree]
    mark: str = ""


def _texts(change: Callable[[str], str]) -> Callable[[Tree, dict[str, str]], Tree]:
    """Make a rule's function of one that changes texts."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            # Sorted: what is numbered by its first appearance must not depend on how an object was built.
            return {walk(name): walk(value[name]) for name in sorted(value)}
        return value

    return lambda tree, _own: walk(tree)


def _substitute(pattern: str, replacement: str) -> Callable[[Tree, dict[str, str]], Tree]:
    compiled = re.compile(pattern)
    return _texts(lambda text: compiled.sub(replacement, text))


def _own_words(tree: Tree, own: dict[str, str]) -> Tree:
    def change(text: str) -> str:
        for word, name in own.items():
            text = text.replace(word, name)
        return text

    return _texts(change)(tree, own)


def _magic_line(tree: Tree, own: dict[str, str]) -> Tree:
    """Take the line of the magic, wherever in the cell it stands, out of the echo of the cell."""
    for message in tree["messages"]:
        if message["type"] == "execute_input":
            message["content"]["code"] = re.sub(r"(?m)^%%gpu_run.*\n", "", message["content"]["code"], count=1)
    return tree


_RANDOM = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"  # uuid
    r"|\b[0-9a-f]{8}-[0-9a-f]{24}(?:_\d+_\d+)?\b"  # a jupyter_client session's, and its messages'
    r"|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])"  # uuid without dashes: comms, displays
    r"|\bT_[0-9a-f]{5}(?=_|\b)"  # a pandas Styler
)


def _random_names(tree: Tree, own: dict[str, str]) -> Tree:
    known: dict[str, str] = {}
    change = _texts(lambda text: _RANDOM.sub(lambda match: known.setdefault(match[0], f"<id {len(known)}>"), text))
    return change(tree, own)


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _is_stream(message: Tree) -> bool:
    return bool(message["type"] == "stream")


def _joined(tree: Tree, own: dict[str, str]) -> Tree:
    messages: list[Tree] = []
    for message in tree["messages"]:
        before = messages[-1] if messages else None
        if before and _is_stream(message) and _is_stream(before):
            same = before["content"]["name"] == message["content"]["name"] and before["metadata"] == message["metadata"]
            if same:
                before["content"]["text"] += message["content"]["text"]
                continue
        messages.append(message)
    return {**tree, "messages": messages}


def _gathered(messages: list[Tree]) -> Iterator[Tree]:
    for name in ("stdout", "stderr"):
        mine = [message for message in messages if message["content"]["name"] == name]
        if mine:
            text = "".join(message["content"]["text"] for message in mine)
            yield {**mine[0], "content": {"name": name, "text": text}}


def _by_stream(tree: Tree, own: dict[str, str]) -> Tree:
    """Between two other messages: all of stdout, then all of stderr."""
    messages: list[Tree] = []
    waiting: list[Tree] = []
    for message in tree["messages"]:
        if _is_stream(message):
            waiting.append(message)
            continue
        messages += [*_gathered(waiting), message]
        waiting = []
    return {**tree, "messages": messages + list(_gathered(waiting))}


def _text_apart(tree: Tree, own: dict[str, str]) -> Tree:
    streams = [message for message in tree["messages"] if _is_stream(message)]
    others = [message for message in tree["messages"] if not _is_stream(message)]
    return {**tree, "messages": [*others, *_gathered(streams)]}


#: tqdm gives rates below ten a blank in front
_PADDING = r"(?:(?<=, ) (?=\d\.\d\d(?:it/s|s/it)))?"
_DURATION = (
    _PADDING + r"\d+(?:\.\d+)?(?:e\+\d+)? ?(?:ns|µs|us|μs|ms|s|min|it/s|s/it)\b|\d?\d:\d\d(?=[<,\] ])|\?(?=it/s)"
)


_CARD = re.compile(r"Job j[0-9a-z]+( on [^\s:]+)?: ")

#: where messages are looked at: a document's outputs keep no ids
_CARD_ID = re.compile(r"gpu-[0-9a-f]{32}")

#: in a terminal, which can't update what it printed
_CARD_LINES = re.compile(rf"(?m)^{_CARD.pattern}.*\n")


def is_card(content: dict[str, Any]) -> bool:
    """Say whether a display is the card of a job: its text and its form are no user's."""
    if _CARD_ID.fullmatch(str((content.get("transient") or {}).get("display_id"))):
        return True
    data = content.get("data") or {}
    marked = str(data.get("text/html", "")).startswith("<small>Job <code>")
    return marked and _CARD.match(str(data.get("text/plain", ""))) is not None


def _without_card(tree: Tree, own: dict[str, str]) -> Tree:
    return {**tree, "messages": [message for message in tree["messages"] if not is_card(message["content"])]}


NORMALISED = (
    Rule("the magic's line", "it is the one thing that was typed differently", _magic_line),
    Rule("the job's card", "a job that takes over two seconds says what it waits for; not the cell's", _without_card),
    Rule(
        "own words",
        "the id of the request, the kernel's directory and its process id name this kernel and no other",
        _own_words,
    ),
    Rule("random names", "drawn anew for each run; numbered by first appearance, so mix-ups still show", _random_names),
    Rule("addresses", "where an object lies in memory is chance", _substitute(r"\b0x[0-9a-f]{6,16}\b", "0x…")),
    Rule("adjacent chunks", "where text of one stream is cut is the kernel's clock, locally too", _joined),
    Rule(
        "times",
        "how long something took; where a cell prints that",
        _substitute(_DURATION, "…"),
        TIMES,
    ),
    Rule(
        "order of two streams",
        "each stream of a kernel has its own buffer: only what one of them says is in order",
        _by_stream,
        STREAMS,
    ),
    Rule(
        "order of descriptors",
        "what a process writes to its descriptors comes when it comes, locally too (16 orders in 20 runs)",
        _text_apart,
        TEXT,
    ),
    Rule(
        "depth of recursion",
        "how many frames fit depends on the frames below the cell",
        _substitute(r"\(\d+ times\)", "(… times)"),
        DEPTH,
    ),
)


def normalised(tree: Tree, own: dict[str, str], marks: frozenset[str] = frozenset()) -> Tree:
    tree = json.loads(json.dumps(tree, sort_keys=True))
    for rule in NORMALISED:
        if not rule.mark or rule.mark in marks:
            tree = rule.apply(tree, own)
    return tree


def differences(here: Transcript, there: Transcript, marks: frozenset[str] = frozenset()) -> list[str]:
    """Compare two runs of a cell; return how they differ as lines of a diff, nothing when they are equal."""
    trees = [normalised(run.tree(), run.own, marks) for run in (here, there)]
    return tree_differences(*trees)


@dataclass(frozen=True)
class TextRule:
    """One thing in which what two terminals show may differ; *marks*: any of them switches it on, none: always on."""

    name: str
    reason: str
    apply: Callable[[str], str]
    marks: frozenset[str] = frozenset()


#: before `NORMALISED`, where a terminal's text is all there is
NORMALISED_TEXT = (
    TextRule("colours", "a job's shell does not know the terminal's theme", lambda text: _COLOUR.sub("", text)),
    TextRule("the job's card", "as in a kernel; a terminal keeps each line of it", lambda t: _CARD_LINES.sub("", t)),
    TextRule(
        "order of two streams",
        "one text holds both: the lines of the two stand in any order",
        lambda text: "".join(sorted(text.splitlines(keepends=True))),
        frozenset({STREAMS, TEXT}),
    ),
)


def text_differences(here: str, there: str, marks: frozenset[str] = frozenset()) -> list[str]:
    """Compare what two terminals showed."""
    shown = []
    for text in (here, there):
        for rule in NORMALISED_TEXT:
            if not rule.marks or rule.marks & marks:
                text = rule.apply(text)
        message = {"type": "stream", "content": {"name": "stdout", "text": text}, "metadata": {}}
        shown.append(normalised({"messages": [message], "reply": {}}, {}, marks))
    return tree_differences(*shown)


def tree_differences(here: Tree, there: Tree) -> list[str]:
    first, second = (json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) for tree in (here, there))
    if first == second:
        return []
    lines = [[_short(line) for line in text.split("\n")] for text in (first, second)]
    return [line[:2000] for line in difflib.unified_diff(*lines, "here", "there", lineterm="", n=4)][:200]


def _short(line: str) -> str:
    """Keep a diff readable where a line is megabytes long."""
    if len(line) < 3000:
        return line
    return f"{line[:200]}… {len(line)} characters, sha256 {hashlib.sha256(line.encode()).hexdigest()}"
