"""The domain, pure: what a job is and what may happen to it. No I/O, no framework."""
