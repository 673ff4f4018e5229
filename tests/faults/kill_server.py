"""A process that runs command lines and kills them: each in a fork, before its nth change of the file system.

A request is a line of JSON: ``words``, the command line; ``cwd``; and ``at``, the number of the change before which the
fork is killed, or null. The answer has the exit code, the output, and how many changes there were.

Changes are those of files below ``cwd``: calls that change names, that create, write, truncate or sync a file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from batchmax import renames
from batchmax.cli import main

NAMES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate", "os.symlink"}
ON_DESCRIPTORS = ("write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate", "posix_fallocate")


class Killer:
    """Counts the changes of this process, and kills it before one of them."""

    def __init__(self, folder: str, at: int | None) -> None:
        self.count = 0
        self._folder = folder
        self._at = at
        self._lock = threading.Lock()

    def install(self) -> None:
        """Watch every change from now on."""
        sys.addaudithook(self._audit)
        for name in ON_DESCRIPTORS:
            setattr(os, name, self._watched(getattr(os, name)))
        exchange = renames.exchange

        def exchanged(one: Path, other: Path) -> bool:
            self._change()
            return exchange(one, other)

        renames.exchange = exchanged

    def _watched(self, call: Any) -> Any:
        def watched(descriptor: int, *arguments: Any) -> Any:
            if self._is_here(os.readlink(f"/proc/self/fd/{descriptor}")):
                self._change()
            return call(descriptor, *arguments)

        return watched

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in NAMES:
            descriptors = [one for one in arguments[1:] if isinstance(one, int) and one >= 0]
            is_relative = event in {"os.remove", "os.rmdir"} and bool(descriptors)
            if is_relative or (not isinstance(arguments[0], int) and self._is_here(os.fspath(arguments[0]))):
                self._change()
        elif event == "open" and arguments[2] & os.O_CREAT and self._is_here(str(arguments[0])):
            self._change()

    def _is_here(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self._folder)  # noqa: PTH100 - in a hook of every call

    def _change(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def run(words: list[str], cwd: str, at: int | None) -> dict[str, Any]:
    """Run a command line in a fork; the exit code of one that is killed is -9."""
    with tempfile.TemporaryFile("w+") as answer:
        pid = os.fork()
        if not pid:
            os.chdir(cwd)
            out, err = io.StringIO(), io.StringIO()
            killer = Killer(cwd, at)
            killer.install()
            code = 99
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    code = main(words)
            except BaseException:  # noqa: BLE001 - it is told
                err.write(traceback.format_exc())
            json.dump({"out": out.getvalue(), "err": err.getvalue(), "changes": killer.count}, answer)
            answer.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answer.seek(0)
        text = answer.read()
        return {"code": code, **(json.loads(text) if text else {"out": "", "err": "", "changes": at})}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        if "warm" in asked:
            code = main(asked["warm"])
            reply: dict[str, Any] = {"code": code}
        else:
            reply = run(asked["words"], asked["cwd"], asked["at"])
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
