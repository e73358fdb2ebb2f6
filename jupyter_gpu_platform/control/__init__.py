"""The control service: what keeps jobs, their output and their attempts, and answers HTTP."""
