"""Processes, threads and asynchronous code."""

from __future__ import annotations

from ..transcripts import STREAMS, TEXT
from .cell import cell

# --- processes and threads

cell(
    "a shell line",
    r"""
!echo from a shell; echo bad >&2
files = !printf 'a\nb\n'
files
""",
    TEXT,
)
cell(
    "a shell line that fails",
    """
!exit 3
_exit_code
""",
)
cell(
    "%%bash",
    """
%%bash
echo one
echo two >&2
seq 3
""",
    STREAMS,
)
cell(
    "%%bash that fails",
    """
%%bash
echo before
exit 4
""",
    STREAMS,
    raises=True,
)
cell(
    "%%sh to a variable",
    """
%%sh --out text
echo kept
""",
    after="'text' in globals() or True",
)
cell(
    "a subprocess",
    """
import subprocess, time
print('before', flush=True)
subprocess.run(['sh', '-c', 'echo child; echo error >&2'])
time.sleep(0.3)
print('after')
""",
    TEXT,
    terminal=False,
)
cell(
    "a captured subprocess",
    """
import subprocess
subprocess.run(['echo', 'x'], capture_output=True, text=True).stdout
""",
)
cell(
    "text from C",
    """
import ctypes, time
libc = ctypes.CDLL(None)
libc.puts(b'from C')
libc.fflush(None)
time.sleep(0.3)
""",
    TEXT,
    terminal=False,
)
cell(
    "os.system",
    """
import os, time
status = os.system('echo system')
time.sleep(0.3)
status
""",
    TEXT,
    terminal=False,
)
cell(
    "a thread",
    """
import threading
def work():
    print('in a thread')
    display('shown by it')
t = threading.Thread(target=work)
t.start()
t.join()
print('joined')
""",
    terminal=False,
)
cell(
    "threads in a pool",
    """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(lambda n: n * n, range(50))))
""",
)
cell(
    "an error in a thread",
    """
import threading
t = threading.Thread(target=lambda: 1 / 0, name='mine')
t.start()
t.join()
""",
)
cell(
    "multiprocessing",
    """
import multiprocessing, time
def work(n):
    print('child', n)
context = multiprocessing.get_context('fork')
for n in range(2):
    p = context.Process(target=work, args=(n,))
    p.start()
    p.join()
time.sleep(0.3)
print('exit', p.exitcode)
""",
    TEXT,
    terminal=False,
)
cell(
    "a pool of processes",
    """
import multiprocessing
def square(n):
    return n * n
with multiprocessing.get_context('fork').Pool(2) as pool:
    values = pool.map(square, range(5))
values
""",
)
cell(
    "a fork",
    r"""
import os, time
pid = os.fork()
if not pid:
    os.write(1, b'child\n')
    os._exit(3)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
time.sleep(0.3)
print(code)
""",
    TEXT,
    terminal=False,
)

# --- asynchronous code

cell(
    "top-level await",
    """
import asyncio
print('a')
await asyncio.sleep(0.01)
print('b')
await asyncio.sleep(0, 'value')
""",
)
cell(
    "asyncio.gather",
    """
import asyncio
async def f(n):
    await asyncio.sleep(n / 100)
    print(n)
    return n
await asyncio.gather(*[f(n) for n in (2, 1, 0)])
""",
)
cell(
    "async for and with",
    """
import contextlib
async def numbers():
    for n in range(3):
        yield n
@contextlib.asynccontextmanager
async def opened():
    print('in')
    yield 5
    print('out')
async with opened() as n:
    async for i in numbers():
        print(n, i)
[i async for i in numbers()]
""",
)
cell(
    "an error under await",
    """
import asyncio
async def f():
    await asyncio.sleep(0)
    raise ValueError('async')
await f()
""",
    raises=True,
)
cell(
    "asyncio.run",
    """
import asyncio, warnings
warnings.filterwarnings('ignore', message='coroutine')
asyncio.run(asyncio.sleep(0))
""",
    terminal=False,
    raises=True,
)
cell(
    "create_task",
    """
import asyncio
async def f():
    print('in a task')
    return 1
t = asyncio.create_task(f())
await t
t.result()
""",
    terminal=False,
)
cell(
    "create_task in a cell without await",
    """
import asyncio
async def f():
    pass
t = asyncio.get_running_loop().create_task(f())
type(t).__name__
""",
    terminal=False,
)
cell(
    "nested awaits and threads",
    """
import asyncio
await asyncio.to_thread(print, 'to a thread')
async with asyncio.timeout(5):
    await asyncio.sleep(0)
print('ok')
""",
)
cell(
    "a task group that fails",
    """
import asyncio
async def bad():
    raise ValueError('x')
async with asyncio.TaskGroup() as group:
    group.create_task(bad())
""",
    raises=True,
)
