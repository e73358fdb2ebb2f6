"""Real programs, real jobs, and a seeded schedule of what hurts them; a ledger outside the platform is the truth.

``python -m tests.faults --help`` says what it runs; `checks` says what has to hold.
"""
