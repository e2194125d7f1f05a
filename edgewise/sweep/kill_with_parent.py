"""Run a command and end its whole process group when standard input closes, which it does when whoever started this dies.

    python leash.py COMMAND ...

Standard library only; called by path, in a session of its own. The exit code is the command's.
"""

import os
import signal
import subprocess
import sys
import threading


def watch() -> None:
    os.read(0, 1)  # returns at the end of the stream; nothing is ever written
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    sys.exit(code if code >= 0 else 128 - code)
