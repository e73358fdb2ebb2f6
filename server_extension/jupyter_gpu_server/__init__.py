"""The Jupyter server extension's package; it holds no routes yet: notebooks and the command line need none."""
