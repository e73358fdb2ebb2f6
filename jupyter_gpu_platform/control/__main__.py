"""``python -m jupyter_gpu_platform.control``"""

from .app import main

if __name__ == "__main__":
    main()
