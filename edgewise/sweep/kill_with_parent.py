"""Run a command and kill its process group when standard input closes, as it does when the parent process dies.

    python kill_with_parent.py COMMAND ...

Standard library only; run by path, in a session of its own. The exit code is the command's; 128 + N where signal N ended it.
"""

import os
import signal
import subprocess
import sys
import threading


def kill_at_end_of_input() -> None:
    os.read(0, 1)  # nothing is ever written: returns when the parent is gone
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=kill_at_end_of_input, daemon=True).start()
    code = child.wait()
    sys.exit(code if code >= 0 else 128 - code)
