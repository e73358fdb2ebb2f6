"""Attempts that only seem to run, by the clock: for scale, and for trying the platform out."""
