"""What crosses the agent connection: messages, and the session's state machine. No I/O."""
