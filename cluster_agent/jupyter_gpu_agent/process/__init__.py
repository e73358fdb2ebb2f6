"""The process executor: attempts as supervised processes of this machine."""
