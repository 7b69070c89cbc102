"""Install the servers the tests need, where apt can and we are root; else say which are missing.

Does nothing when they are there. Run by every test environment of tox before its tests. With
`--browser`, install Debian's Chromium and its driver as well; with `--zookeeper`, ZooKeeper.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shardcache.testing.servers import BINARY_PATH, PACKAGES

# Debian starts a service as soon as it is installed, unless this program forbids it (status 101).
POLICY = Path("/usr/sbin/policy-rc.d")
FORBID = "#!/bin/sh\nexit 101\n"

BROWSER: Final = "chromium"
DRIVER: Final = "chromedriver"
ZOOKEEPER: Final = "/usr/share/zookeeper/bin/zkServer.sh"  # whose package brings Java, too

# Programs by what needs them, each with its package.
PROGRAMS: Final[Mapping[str, Mapping[str, str]]] = {
    "servers": PACKAGES,
    "browser": {BROWSER: "chromium", DRIVER: "chromium-driver"},
    "zookeeper": {ZOOKEEPER: "zookeeper"},
}
STUBS: Final = (
    "no browser on Ubuntu: its packages of Chromium and of the driver are stubs for snaps, which"
    " do not work here; run the browser's tests on Debian\n"
)


def main(arguments: Sequence[str] = ()) -> int:
    """Install what is missing; return 1, with a message, when that cannot be done."""
    wanted = _parse(arguments)
    if "browser" in wanted and _on_ubuntu():
        sys.stderr.write(STUBS)
        return 1
    with _alone():
        packages = missing(wanted)
        if packages and _apt_works():
            _install(packages)
            packages = missing(wanted)
    if not packages:
        return 0
    sys.stderr.write(
        f"missing {' and '.join(wanted)}: {', '.join(packages)}. The tests run against real ones; "
        f"as root: apt-get install {' '.join(packages)}\n"
    )
    return 1


def missing(wanted: Sequence[str] = ("servers",)) -> list[str]:
    """Return the packages whose binaries are not on this machine."""
    return [
        package
        for kind in wanted
        for binary, package in PROGRAMS[kind].items()
        if shutil.which(binary, path=BINARY_PATH) is None
    ]


def _parse(arguments: Sequence[str]) -> Sequence[str]:
    """Return what is wanted: the servers, and what else is asked for."""
    parser = argparse.ArgumentParser(description="Install the servers the tests need.")
    parser.add_argument("--browser", action="store_true", help="install Chromium as well")
    parser.add_argument("--zookeeper", action="store_true", help="install ZooKeeper as well")
    asked_for = vars(parser.parse_args(arguments))
    return ["servers", *(kind for kind, wanted in asked_for.items() if wanted)]


def _on_ubuntu() -> bool:
    try:
        return platform.freedesktop_os_release()["ID"] == "ubuntu"
    except OSError:  # a system that does not say what it is
        return False


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
    if POLICY.exists():  # the operator has decided
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
    sys.exit(main(sys.argv[1:]))
