"""Functions as jobs, from plain Python, on the real platform."""

from __future__ import annotations

import textwrap


def lines(text: str) -> str:
    return textwrap.dedent(text).lstrip()


def test_a_call_shows_its_output_and_returns_its_value(program):
    text = lines("""
        factor = 3
        def times(x):
            return x * factor
        @gpu.remote
        def call(x, *, more=0):
            print("in the job")
            return times(x) + more
        print(call(2, more=1), call.local(2), call.__name__)
        factor = 4
        print(call.submit(2).result(timeout=60))
    """)
    assert program(text) == "in the job\nin the job\n7 6 call\n8\n"


def test_a_function_may_call_itself_and_be_a_coroutine(program):
    text = lines("""
        import asyncio
        @gpu.remote
        def factorial(n):
            return 1 if n < 2 else n * factorial(n - 1)
        @gpu.remote()
        async def slept(x):
            await asyncio.sleep(0)
            return x
        print(factorial(5), slept("so"))
    """)
    assert program(text) == "120 so\n"


def test_arrays_go_in_and_come_out_writable_and_keep_what_they_share(program):
    text = lines("""
        import numpy as np
        @gpu.remote
        def both(a, b):
            a += 1
            return a, b, a is b
        given = np.zeros(1_000_000)
        a, b, same = both(given, given)
        a[0] = 7
        print(same, a is b, b[:2], given[0])
    """)
    assert program(text) == "True True [7. 1.] 0.0\n"


def test_a_value_keeps_the_class_that_it_has_here(program):
    text = lines("""
        class Point:
            def __init__(self, x):
                self.x = x
        @gpu.remote
        def moved(point):
            return Point(point.x + 1)
        there = moved(Point(1))
        print(there.x, type(there) is Point)
    """)
    assert program(text) == "2 True\n"


def test_what_a_job_raises_is_raised_with_its_own_type_and_the_far_traceback(program):
    text = lines("""
        import traceback
        class Mine(Exception):
            def __init__(self, a, b):
                super().__init__(a, b)
                self.b = b
        @gpu.remote
        def bad(x):
            if x:
                raise Mine(1, x)
            return {}["missing"]
        try:
            bad(2)
        except Mine as error:
            shown = "".join(traceback.format_exception(error))
            print(error.b, "raise Mine(1, x)" in shown, error.__notes__[0].startswith("in job j"))
        job = bad.submit(0)
        error = job.exception()
        print(type(error) is KeyError, error, job.phase)
        try:
            job.result()
        except KeyError as raised:
            print(raised is error)
    """)
    assert program(text) == "2 True True\nTrue 'missing' failed\nTrue\n"


def test_an_exception_that_cannot_be_pickled_keeps_its_name(program):
    text = lines("""
        import threading
        class Locked(Exception):
            def __init__(self):
                super().__init__("it holds a lock")
                self.lock = threading.Lock()
        @gpu.remote
        def bad():
            raise Locked
        try:
            bad()
        except gpu.FarError as error:
            print(type(error).__name__, error, type(error) is Locked)
            print("raise Locked" in str(error.__cause__))
    """)
    assert program(text) == "Locked it holds a lock False\nTrue\n"


def test_an_exception_whose_class_exists_there_only_keeps_its_name(program):
    text = lines("""
        @gpu.remote
        def bad():
            import sys, types
            module = sys.modules["only_there"] = types.ModuleType("only_there")
            exec("class Odd(Exception): pass", vars(module))
            raise module.Odd("not known here")
        error = bad.submit().exception()
        print(isinstance(error, gpu.FarError), type(error).__name__, error)
        @gpu.remote
        def several():
            raise ExceptionGroup("two", [ValueError(1), KeyError(2)])
        print(repr(several.submit().exception()))
    """)
    assert program(text) == "True Odd not known here\nExceptionGroup('two', [ValueError(1), KeyError(2)])\n"


def test_a_job_that_was_interrupted_interrupts_nobody_who_waits(program):
    text = lines("""
        import time
        from jupyter_gpu_platform.client import connect
        @gpu.remote
        def slow():
            print("begun", flush=True)
            time.sleep(600)
        job = slow.submit()
        next(record for record in connect().follow(job.id) if record["type"] == "stream")
        job.interrupt()
        try:
            job.result(60)
        except gpu.FarError as error:
            print(type(error).__name__)
    """)
    assert program(text) == "KeyboardInterrupt\n"


def test_values_of_another_users_job_are_not_loaded(program):
    text = lines("""
        @gpu.remote
        def half(x):
            return x / 2
        good, bad = half.submit(4), half.submit("4")
        good.wait(60), bad.wait(60)
        client = gpu.connect().client()
        token = client.token_add("bob", role="admin")["token"]
        with gpu.connect(client.url, token):
            try:
                gpu.attach(good.id).result()
            except gpu.errors.Forbidden as error:
                print(error.hint)
            error = gpu.attach(bad.id).exception()
            print(isinstance(error, gpu.FarError), type(error).__name__)
        print(gpu.attach(good.id).result(), type(gpu.attach(bad.id).exception()) is TypeError)
    """)
    refused, far, own = program(text).splitlines()
    assert "Its output can be read" in refused
    assert (far, own) == ("True TypeError", "2.0 True")


def test_a_job_that_ends_the_interpreter_does_not_end_the_caller(program):
    text = lines("""
        import os, sys
        @gpu.remote
        def leave(how):
            how(3)
        for how in (sys.exit, os._exit):
            try:
                leave(how)
            except Exception as error:
                print(type(error).__name__)
    """)
    first, second = program(text).split()
    assert first in ("SystemExit", "JobFailed")
    assert second == "JobFailed"


def test_what_cannot_be_sent_is_named(program):
    text = lines("""
        import threading
        lock = threading.Lock()
        @gpu.remote
        def waits(x):
            return lock, x
        @gpu.remote
        def takes(x):
            return x
        for call in (lambda: waits(1), lambda: takes(threading.Lock()), lambda: takes.options(gpu=1)):
            try:
                call()
            except gpu.errors.InvalidRequest as error:
                print(error.message, "|", error.hint)
    """)
    function, argument, option = program(text).splitlines()
    assert "`lock`" in function
    assert "in the function" in function
    assert "argument 1" in argument
    assert option == "there is no option gpu | Did you mean gpus or cpus?"


def test_what_this_machine_can_never_give_is_refused_at_once(program):
    text = lines("""
        for call in (lambda: gpu.remote(gpus=3)(abs)(1), lambda: gpu.run("true", gpus=3)):
            try:
                call()
            except gpu.errors.InvalidRequest as error:
                print(error.message, "|", error.hint)
    """)
    said = program(text).splitlines()
    assert len(said) == 2
    assert all("it could never run" in line and "Ask for less" in line for line in said)


def test_a_result_that_cannot_be_kept_is_explained(program):
    text = lines("""
        import threading
        @gpu.remote
        def locked():
            return threading.Lock()
        try:
            locked()
        except gpu.ValueMissing as error:
            print("lock" in str(error), gpu.jobs(limit=1)[0].phase)
    """)
    assert program(text) == "True succeeded\n"


def test_a_map_of_fifty_gives_its_values_in_order_and_the_failed_one_in_its_place(program):
    text = lines("""
        import sys
        sys.modules["tqdm"] = None
        @gpu.remote(name="mapped")
        def half(x, y):
            if x == 30:
                raise ValueError(x)
            return x / 2 + y
        calls = half.map(range(50), [1] * 50, return_exceptions=True)
        values = list(calls)
        print(len(calls), values[:3], repr(values[30]), values[49])
        print({job.name for job in calls.jobs}, list(calls) == values)
    """)
    assert program(text) == "50 [1.0, 1.5, 2.0] ValueError(30) 25.5\n{'mapped'} True\n"


def test_a_map_that_is_left_early_cancels_the_rest_unless_told_otherwise(program):
    text = lines("""
        import time
        @gpu.remote(cpus=0.01)
        def wait(x):
            if x:
                time.sleep(600)
        calls = wait.map([0, 1], progress=False)
        for value in calls:
            break
        print(calls.jobs[1].wait(60).phase)
        calls = wait.map([0, 1], progress=False, on_interrupt="detach")
        for value in calls:
            break
        print(calls.jobs[1].status().cancel_requested)
        calls.cancel()
        print(calls.jobs[1].wait(60).phase)
    """)
    assert program(text) == "cancelled\nFalse\ncancelled\n"


def test_ctrl_c_ends_a_map_and_what_it_left(program):
    text = lines("""
        import os, signal, time
        @gpu.remote(cpus=0.01)
        def wait(x):
            time.sleep(x)
        calls = wait.map([0, 600], progress=False)
        calls.jobs[0].ending().add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGINT))
        try:
            list(calls)
        except KeyboardInterrupt:
            print([job.wait(60).phase.value for job in calls.jobs])
    """)
    assert program(text) == "['succeeded', 'cancelled']\n"


def test_functions_and_methods_of_a_module_run_too(program, tmp_path):
    (tmp_path / "beside.py").write_text(
        lines("""
            import math
            import jupyter_gpu_platform as gpu
            more = 5
            def helped(x):
                return x + more
            @gpu.remote
            def call(x):
                return helped(x) + math.floor(1.5)
            class Counter:
                def __init__(self, number):
                    self.number = number
                @gpu.remote
                def times(self, x):
                    return self.number * x
        """)
    )
    assert program("import beside\nprint(beside.call(1), beside.Counter(3).times(4))") == "7 12\n"


def test_coroutines_wait_for_many_jobs_at_once(program):
    text = lines("""
        import asyncio, threading
        @gpu.remote
        def add(x, y=1):
            if x < 0:
                raise ValueError(x)
            return x + y
        async def main():
            print(await asyncio.gather(*(add.acall(x) for x in range(4))))
            job = await add.asubmit(1, y=2)
            print(await job, await job.aresult(timeout=60))
            print([value async for value in add.amap([1, 2], progress=False)])
            print(await asyncio.gather(add.submit(-1), add.submit(5), return_exceptions=True))
            slow = gpu.run("sleep 600", wait=False)
            try:
                await slow.aresult(timeout=0.1)
            except TimeoutError as error:
                print(str(error).startswith(f"job {slow.id} has not ended"))
            slow.cancel()
        asyncio.run(main())
    """)
    assert program(text) == "[1, 2, 3, 4]\n3 3\n[2, 3]\n[ValueError(-1), 6]\nTrue\n"


def test_objects_that_were_swept_meanwhile_are_uploaded_again(program):
    text = lines("""
        class Everything(set):
            def __contains__(self, digest):
                return True
        from jupyter_gpu_platform.client.current import current
        @gpu.remote
        def same(x):
            return x
        connection = gpu.connect()
        connection.uploaded = Everything()
        with connection:
            print(same("uploaded after all"))
    """)
    assert program(text) == "uploaded after all\n"
