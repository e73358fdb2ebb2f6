"""The program inside a job: it runs the user's code and owns its output.

Two processes: a small *supervisor* and the *worker* that becomes, or runs, the user's code. So `os._exit`, a
segfault, or a C call that holds the interpreter lock stop neither output nor interrupts. The supervisor numbers
records, appends them to a spool, and sends them to its agent over HTTP; it stays until all of them are durable.

It is run by folder path with whatever Python the job has (3.8 or newer), so it uses the standard library alone and
imports nothing of this project: ``python -I -S RUNNER_FOLDER supervise ATTEMPT_DIR``.
"""
