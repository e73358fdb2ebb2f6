"""``python -m jupyter_gpu_agent``."""

from .app import main

main()
