"""What is said where cadcpp cannot run."""

import subprocess
import sys


def test_on_windows_one_line_says_what_helps() -> None:
    code = "import sys; sys.platform = 'win32'; import cadcpp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "WSL" in line
