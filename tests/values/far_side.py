"""The other side of a round trip: loads values, runs code with them, packs what is asked for."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback

from jupyter_gpu_platform.runner.values import CannotLoad, CannotPack, Packer, Unpacked

for line in sys.stdin:
    request = json.loads(line)
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    answer = {"stdout": "", "error": "", "entries": []}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            if request["path"]:
                unpacked = Unpacked(request["path"], namespace)
                unpacked.add_path()
                namespace.update(unpacked.load())
            exec(compile(request["code"], "<far>", "exec"), namespace)
            packer = Packer(namespace, limit=2**30, encoding=request["encoding"])
            for name in request["out"]:
                answer["entries"].append(packer.add(name, namespace[name], "out"))
            packer.write(request["back"])
        except (CannotLoad, CannotPack) as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        except Exception:  # noqa: BLE001 - whatever a test's code raises is its answer
            answer["error"] = traceback.format_exc()
    answer["stdout"] = out.getvalue()
    print(json.dumps(answer), flush=True)
