"""The cluster agent: makes true on its cluster what the control service wants, and says what it sees."""
