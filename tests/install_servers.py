"""Install the servers the tests need, where apt can and we are root; else say which are missing.

Does nothing when they are there. Run by every test environment of tox before its tests.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shardcache.testing.servers import BINARY_PATH, PACKAGES

# Debian starts a service as soon as it is installed, unless this program forbids it (status 101).
POLICY = Path("/usr/sbin/policy-rc.d")
FORBID = "#!/bin/sh\nexit 101\n"


def main() -> int:
    """Install what is missing; give 1, with a message, when that cannot be done."""
    with _alone():
        packages = missing()
        if packages and _apt_works():
            _install(packages)
            packages = missing()
    if not packages:
        return 0
    sys.stderr.write(
        f"missing servers: {', '.join(packages)}. The tests run against real ones; "
        f"as root: apt-get install {' '.join(packages)}\n"
    )
    return 1


def missing() -> list[str]:
    """Give the packages whose binaries are not on this machine."""
    return [
        package
        for binary, package in PACKAGES.items()
        if shutil.which(binary, path=BINARY_PATH) is None
    ]


def _apt_works() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install(packages: Sequence[str]) -> None:
    with _services_forbidden():
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *packages)


def _apt(*arguments: str) -> None:
    # RUNLEVEL=1 is what invoke-rc.d asks for where there is no policy; stdin must not be waited on.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # Another apt may hold the lock for a while, as on a machine that has just been started.
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "--quiet", *arguments]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)


@contextmanager
def _services_forbidden() -> Iterator[None]:
    if POLICY.exists():  # somebody has decided already
        yield
        return
    POLICY.write_text(FORBID)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


@contextmanager
def _alone() -> Iterator[None]:
    """Let one of several environments that run at once install, and the others wait for it."""
    with Path(tempfile.gettempdir(), f"shardcache-install-{os.geteuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
