"""The command line, ``jupyter gpu …``: each command is a module of its own, imported when it is called."""
