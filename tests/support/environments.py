"""Made environments for a command: read-only systems, strange users, quotas. Most need root; `why_not` tells."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import COMMAND, ROOT

_READ_ONLY = """
mount --make-rprivate /
while read -r _ place kind _; do
    case "$kind" in proc|sysfs|cgroup*|devpts|mqueue) continue;; esac
    mount -o remount,bind,ro "$place" 2>/dev/null
done < /proc/self/mounts
exec "$@"
"""
_CPU = Path("/sys/fs/cgroup/cpu")  # of version 1; a group of version 2 would have to be given a controller


@dataclass(frozen=True, slots=True)
class Environment:
    """What stands before a command, in which variables, and what its process does first."""

    prefix: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    enter: Callable[[], None] | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`cadcpp <arguments>` in it."""
        variables = {name: value for name, value in os.environ.items() if name not in self.without}
        return subprocess.run(
            [*self.prefix, *COMMAND, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**variables, "GGML_NO_BACKTRACE": "1", "PYTHONDONTWRITEBYTECODE": "1", **self.variables},
            preexec_fn=self.enter,
            timeout=100,
        )


def read_only() -> Environment:
    """Nothing can be written anywhere, but in memory."""
    return Environment(("unshare", "--mount", "sh", "-c", _READ_ONLY, "sh"))


def unknown_user() -> Environment:
    """A user whom the system does not know, without HOME and without a right of root's."""
    homes = ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "COVERAGE_PROCESS_CONFIG")
    return Environment(("unshare", "--user", "--map-user=54321", "--map-group=54321"), homes)


def powerless_root() -> Environment:
    """Root that may lock 64 KiB in memory, as in most containers."""
    drop = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    return Environment(drop, enter=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536)))


def small_files(n_bytes: int) -> Environment:
    """No file may be larger, in memory neither (`ulimit -f`)."""
    return Environment(
        without=("COVERAGE_PROCESS_CONFIG",),
        enter=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)),
    )


def one_core_s_quota(name: str) -> Environment:
    """A control group, to be removed by `remove_quota`, that may use one core's worth of time."""
    group = _CPU / name
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text("100000")

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    return Environment(enter=enter)


def remove_quota(name: str) -> None:
    (_CPU / name).rmdir()


def why_not(environment: Environment) -> str | None:
    """Why an environment cannot be made here, or None."""
    if environment.prefix and shutil.which(environment.prefix[0]) is None:
        return f"there is no {environment.prefix[0]}"
    tried = subprocess.run([*environment.prefix, "true"], capture_output=True, text=True)
    return tried.stderr.strip() or "not allowed" if tried.returncode else None


def why_no_quota() -> str | None:
    return None if os.access(_CPU / "cgroup.procs", os.W_OK) else "needs root and control groups of version 1"
