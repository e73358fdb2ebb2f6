"""Values in and out, functions as jobs, and questions: what travels beside the output."""

from __future__ import annotations

import hashlib
import shutil
import sys
import textwrap
import types

import pytest

from jupyter_gpu_platform.runner import processes
from jupyter_gpu_platform.runner.values import Packer


def packed(agent, **values):
    packer = Packer({"__name__": "__main__"}, limit=2**30)
    for name, value in values.items():
        packer.add(name, value)
    return agent.store(packer)


def define(source, name):
    """Make a function as a notebook's cell does, in a `__main__` of its own."""
    namespace = {"__name__": "__main__"}
    exec(textwrap.dedent(source), namespace)
    return namespace[name]


def kept(attempt):
    (record,) = (r for r in attempt.agent.records if r["type"] == "values")
    return record


def bare(attempt):
    """An environment in which ipykernel can't be imported."""
    folder = attempt.folder / "bare"
    folder.mkdir()
    (folder / "ipykernel.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(folder)}


# --- in and out


@pytest.mark.parametrize("plain", [False, True])
def test_names_come_in_and_names_go_out(attempt, agent, plain):
    env = bare(attempt) if plain else {}
    values = packed(agent, xs=[1, 2], gone=5)
    attempt.cell("xs.append(3)\ntotal = sum(xs)\ndel gone", values=values, out=["xs", "total"], env=env)
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["values", "exit"]
    assert agent.values(attempt.folder) == {"xs": [1, 2, 3], "total": 6}
    assert [(e["name"], e["kind"], e["type"]) for e in kept(attempt)["entries"]] == [
        ("xs", "out", "list"),
        ("total", "out", "int"),
    ]
    assert kept(attempt)["failed"] == []
    assert kept(attempt)["encoding"] == "pickle"
    assert not (attempt.folder / "objects").exists()
    assert not (attempt.folder / "results").exists()


@pytest.mark.parametrize("plain", [False, True])
def test_each_name_that_did_not_come_says_why(attempt, agent, plain):
    env = bare(attempt) if plain else {}
    attempt.cell(
        "import threading\nlock = threading.Lock()\na = 1\ndel a\ndel b\nfine = 1",
        values=packed(agent, b=2),
        out=["lock", "a", "b", "never", "fine"],
        env=env,
    )
    assert attempt.finish()["exit_code"] == 0
    failed = {f["name"]: f["code"] for f in kept(attempt)["failed"]}
    assert failed == {"lock": "not_picklable", "a": "deleted", "b": "deleted", "never": "not_assigned"}
    assert agent.values(attempt.folder) == {"fine": 1}


def test_names_come_back_from_a_cell_that_fails(attempt, agent):
    attempt.cell("got = 1\n1/0\nlater = 2", out=["got", "later"])
    assert attempt.finish()["reason"]["code"] == "error"
    assert agent.values(attempt.folder) == {"got": 1}
    assert [f["code"] for f in kept(attempt)["failed"]] == ["not_assigned"]


@pytest.mark.parametrize(
    ("code", "came", "failed"),
    [
        ("40 + 2", 42, None),
        ("_ = 1; 'x' * 3", "xxx", None),
        ("b'x' * 2**25;", None, None),
        ("len(b'x' * 2**25)\nb'x' * 2**25", None, "too_large"),
        ("import matplotlib.pyplot as plt\nplt.plot([1, 2])", None, "not_picklable"),
        ("import ipywidgets\n[ipywidgets.IntSlider()]", None, "not_picklable"),
        ("(n for n in [])", None, "not_picklable"),
        ("class Odd:\n    def __getattr__(self, name): raise RuntimeError(name)\nOdd();\nOdd()", None, "not_picklable"),
        ("print(1)", None, None),
    ],
)
def test_the_last_result_comes_back_where_it_is_worth_it(attempt, agent, code, came, failed):
    attempt.cell(code)
    assert attempt.finish()["exit_code"] == 0
    records = [r for r in agent.records if r["type"] == "values"]
    if came is not None:
        assert agent.values(attempt.folder) == {"_": came}
        assert records[0]["entries"][0]["kind"] == "result"
    elif failed is not None:
        assert [(f["name"], f["kind"], f["code"]) for f in records[0]["failed"]] == [("_", "result", failed)]
        assert records[0]["object"] is None
    else:
        assert records == []


def test_json_takes_plain_data_only(attempt, agent):
    attempt.cell("a = {'x': [1, None]}\nb = object()", out=["a", "b"], encoding="json")
    assert attempt.finish()["exit_code"] == 0
    assert agent.values(attempt.folder) == {"a": {"x": [1, None]}}
    assert [(f["name"], f["code"]) for f in kept(attempt)["failed"]] == [("b", "not_picklable")]


def test_a_download_that_breaks_off_goes_on_where_it_was(attempt, agent):
    agent.refuse["objects"] = 2
    values = packed(agent, data=b"z" * 300_000)
    agent.cut[values["digest"]] = 1
    attempt.cell("print(len(data))", values=values)
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "300000\n"
    first, second = agent.fetched
    assert first == 0
    assert second > 0


def test_a_damaged_download_is_not_used(attempt, agent):
    values = packed(agent, a=1)
    agent.objects[values["digest"]] = b"x" * values["size"]
    attempt.cell("print(a)", values=values)
    assert attempt.finish()["reason"]["code"] == "object_missing"
    assert agent.text() == ""
    assert len(agent.fetched) == 3


def test_values_that_are_gone_fail_the_job(attempt, agent):
    attempt.cell("print(1)", values={"digest": "0" * 64, "size": 10})
    result = attempt.finish()
    assert (result["exit_code"], result["reason"]["code"]) == (None, "object_missing")
    assert agent.records[-1]["reason"]["code"] == "object_missing"
    assert agent.text() == ""


def test_a_value_that_cannot_be_loaded_fails_the_start_and_is_named(attempt, agent):
    only_here = types.ModuleType("only_here")
    exec("class Thing: pass", only_here.__dict__)
    sys.modules["only_here"] = only_here
    try:
        values = packed(agent, fine=1, thing=only_here.Thing())
    finally:
        del sys.modules["only_here"]
    attempt.cell("print(1)", values=values)
    result = attempt.finish()
    assert result["reason"]["code"] == "values_failed"
    assert "`thing`" in result["reason"]["message"]
    assert "only_here" in result["reason"]["message"]


def test_functions_from_another_python_fail_the_start(attempt, agent):
    packer = Packer({"__name__": "__main__"}, limit=2**30)
    packer.add("f", define("def f(): pass", "f"))
    data = b"".join(packer.chunks())
    here = b'"python": [%d, %d]' % sys.version_info[:2]
    assert here in data
    other = data.replace(here, b'"python": [%d, %d]' % (sys.version_info[0], sys.version_info[1] + 1))
    assert len(other) == len(data)
    digest = hashlib.sha256(other).hexdigest()
    agent.objects[digest] = other
    attempt.cell("print(1)", values={"digest": digest, "size": len(other)})
    result = attempt.finish()
    assert result["reason"]["code"] == "python_mismatch"
    assert "--python" in result["reason"]["message"]


def test_an_upload_is_tried_again_until_it_is_through(attempt, agent):
    agent.put_status = 503
    attempt.cell("a = 1", out=["a"])
    agent.wait(lambda: agent.puts >= 2)
    assert "exit" not in attempt.types()
    agent.put_status = 0
    assert attempt.finish()["exit_code"] == 0
    assert agent.values(attempt.folder) == {"a": 1}


@pytest.mark.parametrize(("status", "code"), [(413, "too_large"), (400, "not_kept"), (404, "not_kept")])
def test_an_upload_that_is_refused_fails_no_job(attempt, agent, status, code):
    agent.put_status = status
    attempt.cell("a = 1\na", out=["a"])
    assert attempt.finish()["exit_code"] == 0
    record = kept(attempt)
    assert (record["object"], record["entries"]) == (None, [])
    assert [(f["name"], f["kind"], f["code"], f["message"]) for f in record["failed"]] == [
        ("a", "out", code, "the service said no"),
        ("_", "result", code, "the service said no"),
    ]


def test_an_upload_ends_with_a_stop(attempt, agent):
    agent.put_status = 503
    attempt.cell("a = 1", out=["a"])
    agent.wait(lambda: agent.puts)
    agent.want("stop", grace=0)
    assert attempt.finish()["reason"]["code"] == "stopped"
    assert kept(attempt)["failed"][0]["code"] == "not_kept"


def test_an_upload_ends_with_an_interrupt(attempt, agent):
    agent.put_status = 503
    attempt.cell("a = 1", out=["a"])
    agent.wait(lambda: agent.puts)
    agent.want("run", interrupts=1)
    assert attempt.finish()["exit_code"] == 0
    assert kept(attempt)["failed"][0]["code"] == "not_kept"


def test_an_upload_ends_with_the_claim(attempt, agent):
    agent.put_status = 410
    attempt.cell("a = 1", out=["a"])
    attempt.finish()
    assert agent.end is None
    assert "values" not in attempt.types()


# --- functions


@pytest.mark.parametrize("plain", [False, True])
def test_a_function_is_called_with_its_arguments_and_its_result_is_kept(attempt, agent, plain):
    work = define("def work(a, *, b):\n    print('working')\n    return [a, b]", "work")
    attempt.function(work, 1, kwargs={"b": "x"}, env=bare(attempt) if plain else {})
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["stream", "values", "exit"]
    assert agent.values(attempt.folder) == {"result": [1, "x"]}
    assert kept(attempt)["entries"][0]["kind"] == "result"


@pytest.mark.parametrize("plain", [False, True])
def test_what_a_function_raises_is_shown_without_our_frames_and_kept(attempt, agent, plain):
    work = define("def work(d):\n    return inner(d)\ndef inner(d):\n    return d['k']", "work")
    attempt.function(work, {}, env=bare(attempt) if plain else {})
    result = attempt.finish()
    assert (result["exit_code"], result["reason"]["details"]["ename"]) == (1, "KeyError")
    assert attempt.types() == ["error", "values", "exit"]
    error = agent.records[0]
    text = "\n".join(error["traceback"])
    assert "inner" in text
    assert "runner" not in text
    raised = agent.values(attempt.folder)["exception"]
    assert (type(raised), raised.args) == (KeyError, ("k",))


@pytest.mark.parametrize("plain", [False, True])
def test_a_coroutine_function_is_awaited(attempt, agent, plain):
    source = "import asyncio\nasync def work():\n    await asyncio.sleep(0)\n    return 'done'"
    attempt.function(define(source, "work"), env=bare(attempt) if plain else {})
    assert attempt.finish()["exit_code"] == 0
    assert agent.values(attempt.folder) == {"result": "done"}


def test_a_coroutine_function_that_raises_shows_its_own_frames_only(attempt, agent):
    source = "import asyncio\nasync def work(n):\n    await asyncio.sleep(0)\n    raise ValueError(n)"
    attempt.function(define(source, "work"), 3)
    assert attempt.finish()["reason"]["details"]["ename"] == "ValueError"
    text = "\n".join(agent.records[0]["traceback"])
    assert "kernel_shell" not in text
    assert "base_events" not in text


def test_a_function_may_run_a_loop_of_its_own(attempt, agent):
    source = "import asyncio\nasync def inner():\n    return 5\ndef work():\n    return asyncio.run(inner())"
    attempt.function(define(source, "work"))
    assert attempt.finish()["exit_code"] == 0
    assert agent.values(attempt.folder) == {"result": 5}


def test_figures_and_displays_of_a_function_show(attempt, agent):
    source = """
        def work():
            import matplotlib.pyplot as plt
            from IPython.display import display
            display("shown")
            plt.plot([1, 2])
    """
    attempt.function(define(source, "work"))
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["display", "display", "values", "exit"]
    assert "image/png" in agent.records[1]["data"]
    assert agent.values(attempt.folder) == {"result": None}


def test_a_function_is_interrupted(attempt, agent):
    source = """
        import time
        def work():
            try:
                print("go")
                time.sleep(1000)
            finally:
                print("cleaned")
    """
    attempt.function(define(source, "work"))
    agent.wait_for_text("go\n")
    agent.want("run", interrupts=1)
    assert attempt.finish()["reason"]["details"]["ename"] == "KeyboardInterrupt"
    assert agent.text() == "go\ncleaned\n"


def test_a_result_that_cannot_be_packed_fails_no_job(attempt, agent):
    attempt.function(define("def work():\n    return (n for n in [])", "work"))
    assert attempt.finish()["exit_code"] == 0
    assert [(f["name"], f["kind"], f["code"]) for f in kept(attempt)["failed"]] == [
        ("result", "result", "not_picklable")
    ]


# --- questions

ASK = "import getpass\nprint(input('name? '))\nprint(len(getpass.getpass('key? ')))"


@pytest.mark.parametrize("plain", [False, True])
def test_questions_are_records_and_answers_reach_the_code(attempt, agent, plain):
    attempt.cell(ASK, frontend={"stdin": True}, env=bare(attempt) if plain else {})
    agent.wait(lambda: attempt.types() == ["input"])
    agent.answer(1, "Ada")
    agent.answer(1, "Ada again")
    agent.wait(lambda: attempt.types().count("input") == 2)
    agent.answer(2, "s3cret-é")
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["input", "input_reply", "stream", "input", "input_reply", "stream", "exit"]
    first, second = (r for r in agent.records if r["type"] == "input")
    assert (first["request"], first["prompt"], first["password"]) == (1, "name? ", False)
    assert (second["request"], second["prompt"], second["password"]) == (2, "key? ", True)
    assert agent.text() == "Ada\n8\n"
    assert b"s3cret" not in b"".join(agent.lines)


@pytest.mark.parametrize("plain", [False, True])
def test_where_nobody_can_answer_the_error_says_so(attempt, agent, plain):
    attempt.cell("input('name? ')", env=bare(attempt) if plain else {})
    assert attempt.finish()["reason"]["details"]["ename"] == "StdinNotImplementedError"


@pytest.mark.parametrize("plain", [False, True])
def test_an_interrupt_ends_the_question(attempt, agent, plain):
    code = "try:\n    input('? ')\nexcept KeyboardInterrupt:\n    print('no')\nprint(input('again? '))"
    attempt.cell(code, frontend={"stdin": True}, env=bare(attempt) if plain else {})
    agent.wait(lambda: attempt.types() == ["input"])
    agent.want("run", interrupts=1)
    agent.wait(lambda: attempt.types().count("input") == 2)
    assert attempt.types() == ["input", "input_reply", "stream", "input"]
    agent.answer(1, "too late")
    agent.answer(2, "now")
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "no\nnow\n"


def test_a_question_is_asked_though_the_output_is_cut(attempt, agent):
    agent.max_output_bytes = 100_000
    code = "for _ in range(30): print('z' * 10_000)\nanswer = input('? ')\nlen(answer)"
    attempt.cell(code, frontend={"stdin": True})
    agent.wait(lambda: attempt.types()[-1:] == ["input"])
    agent.answer(1, "\x00" * 65536)
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types()[-5:] == ["gap", "input", "input_reply", "values", "exit"]
    assert agent.values(attempt.folder) == {"_": 65536}


def test_a_child_process_cannot_ask(attempt, agent):
    code = """
import os
pid = os.fork()
if not pid:
    try:
        input('? ')
    except EOFError:
        print('nobody', flush=True)
    os._exit(0)
os.waitpid(pid, 0);
"""
    attempt.cell(code, frontend={"stdin": True})
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "nobody\n"
    assert "input" not in attempt.types()


def test_the_end_of_input_is_raised(attempt, agent):
    attempt.cell("input('? ')", frontend={"stdin": True})
    agent.wait(lambda: attempt.types() == ["input"])
    agent.answer(1, "\x04")
    assert attempt.finish()["reason"]["details"]["ename"] == "EOFError"


def test_a_question_waits_for_an_agent_that_is_away(attempt, agent):
    attempt.cell("print(input('? '))", frontend={"stdin": True})
    agent.wait(lambda: attempt.types() == ["input"])
    agent.stop()
    agent.start()
    agent.answer(1, "hello")
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "hello\n"


def test_a_job_that_waits_for_an_answer_can_be_stopped(attempt, agent):
    attempt.cell("input('? ')", frontend={"stdin": True})
    agent.wait(lambda: attempt.types() == ["input"])
    agent.want("stop", grace=20)
    assert attempt.finish()["reason"]["code"] == "stopped"


# --- what the notebook says of itself


def test_cells_are_named_as_in_the_notebook(attempt, agent):
    attempt.cell(
        "import os\nprint(os.path.basename(os.path.dirname((lambda: 0).__code__.co_filename)))\n"
        "print(sorted(name for name in os.environ if name.startswith('JGP')))\n"
        "print(get_ipython().kernel.get_parent()['header']['msg_id'])",
        frontend={"kernel_pid": 4321, "parent_header": {"msg_id": "the-request"}},
    )
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "ipykernel_4321\n['JGP_ATTEMPT', 'JGP_INCARNATION', 'JGP_JOB_ID']\nthe-request\n"


def test_modules_beside_the_notebook_are_found(attempt, agent, monkeypatch):
    folder = attempt.folder / "beside"
    folder.mkdir()
    (folder / "beside_the_notebook.py").write_text("answer = 42")
    monkeypatch.syspath_prepend(str(folder))
    values = packed(agent, a=1)
    attempt.cell("import beside_the_notebook\nprint(beside_the_notebook.answer)", values=values)
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "42\n"


def test_a_deleted_directory_ends_the_job(attempt, agent):
    attempt.command("sh", "-c", "echo $$; exec sleep 1000")
    agent.wait(lambda: agent.text())
    pid = int(agent.text())
    with (attempt.folder / "supervisor.log").open() as log:
        agent.stop()
        shutil.rmtree(attempt.folder)
        assert attempt.process.wait(20) == 4
        assert "was deleted" in log.read()
    assert processes.start_time(pid) is None
    assert not attempt.folder.exists()
