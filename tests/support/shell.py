"""A shell of one job: `python -m tests.support.shell COMMAND...`, and `fg` or `bg` once that is suspended."""

import os
import signal
import subprocess
import sys
import termios

_LOCAL = 3  # where termios has the flag of echo


def main() -> None:
    """Run the command in the foreground to its end."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # so that the terminal can be taken back
    job = subprocess.Popen(sys.argv[1:], preexec_fn=_begin_job)
    while True:
        _, status = os.waitpid(job.pid, os.WUNTRACED)
        os.tcsetpgrp(0, os.getpgrp())
        if not os.WIFSTOPPED(status):
            sys.exit(os.waitstatus_to_exitcode(status))
        print(f"suspended, echo {'on' if termios.tcgetattr(0)[_LOCAL] & termios.ECHO else 'off'}", flush=True)
        while (typed := sys.stdin.readline().strip()) == "bg":
            os.killpg(job.pid, signal.SIGCONT)
            print("goes on in the background", flush=True)
        assert typed == "fg", typed
        os.tcsetpgrp(0, job.pid)
        os.killpg(job.pid, signal.SIGCONT)


def _begin_job() -> None:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)


if __name__ == "__main__":
    main()
