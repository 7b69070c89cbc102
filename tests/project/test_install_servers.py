"""Missing servers are installed where that is possible, and named where it is not."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

import install_servers

# Logs its arguments and whether services may start, and "installs" by creating the binaries.
APT = """#!/bin/sh
{policy} start; echo "$? $*" >> {log}
case "$*" in
    *" install "*) for name in {works}; do : > {sbin}/$name; chmod +x {sbin}/$name; done;;
esac
"""
ALL = "memcached redis-server nutcracker"
BROWSER = "chromium chromium-driver"


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """Return the files of a machine without servers, where we are root and `apt-get` works."""
    monkeypatch.setattr(install_servers, "BINARY_PATH", str(tmp_path))
    monkeypatch.setattr(install_servers, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    provide(tmp_path, ALL)
    return tmp_path


def provide(machine: Path, works: str) -> None:
    """Write an `apt-get` that installs some servers."""
    apt = machine / "apt-get"
    text = APT.format(
        policy=machine / "policy-rc.d", log=machine / "log", sbin=machine, works=works
    )
    apt.write_text(text)
    apt.chmod(0o755)


def test_what_is_missing_is_installed_without_starting_it(machine):
    """Both calls of apt run under a policy that forbids services, which is gone afterwards."""
    assert install_servers.main() == 0
    calls = (machine / "log").read_text().splitlines()
    assert [line.split()[0] for line in calls] == ["101", "101"]
    assert calls[0].endswith("update")
    assert calls[1].endswith(ALL)
    assert not (machine / "policy-rc.d").exists()


def test_only_what_is_missing_is_asked_for(machine):
    """A server that is there is left alone, and with all there apt is not run at all."""
    shutil.copy(machine / "apt-get", machine / "memcached")
    assert install_servers.main() == 0
    assert (machine / "log").read_text().endswith("recommends redis-server nutcracker\n")
    (machine / "log").unlink()
    assert install_servers.main() == 0
    assert not (machine / "log").exists()


def test_an_existing_policy_stays(machine):
    """A machine's own rule about services is neither replaced nor removed."""
    policy = machine / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    assert install_servers.main() == 0
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


def test_without_root_the_packages_are_named(machine, monkeypatch, capsys):
    """A user who may not install is told what to install, and the tests do not start."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install_servers.main() == 1
    assert f"apt-get install {ALL}" in capsys.readouterr().err
    assert not (machine / "log").exists()


def test_what_apt_does_not_have_is_named(machine, capsys):
    """An installation that leaves a server missing is a failure."""
    provide(machine, "memcached redis-server")
    assert install_servers.main() == 1
    assert "missing servers: nutcracker." in capsys.readouterr().err


def test_a_browser_is_installed_when_it_is_asked_for(machine):
    """Chromium and its driver come with the servers, from the packages that Debian has them in."""
    provide(machine, f"{ALL} chromium chromedriver")
    assert install_servers.main(["--browser"]) == 0
    assert (machine / "log").read_text().endswith(f"{ALL} {BROWSER}\n")


def test_no_browser_is_installed_unless_it_is_asked_for(machine):
    """The tests that need only servers bring nothing else to a machine."""
    assert install_servers.main() == 0
    assert "chromium" not in (machine / "log").read_text()


def test_a_browser_that_is_missing_is_named(machine, monkeypatch, capsys):
    """A user who may not install is told the packages of the browser, too."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install_servers.main(["--browser"]) == 1
    assert f"apt-get install {ALL} {BROWSER}" in capsys.readouterr().err
    assert not (machine / "log").exists()


def test_zookeeper_is_installed_when_it_is_asked_for(machine, monkeypatch):
    """With the servers; its package is known by its program."""
    program = machine / "zkServer.sh"
    monkeypatch.setitem(install_servers.PROGRAMS, "zookeeper", {str(program): "zookeeper"})
    assert install_servers.main() == 0
    assert "zookeeper" not in (machine / "log").read_text()
    provide(machine, "zkServer.sh")
    assert install_servers.main(["--zookeeper"]) == 0
    assert (machine / "log").read_text().endswith("recommends zookeeper\n")


def test_on_ubuntu_no_browser_is_installed(machine, monkeypatch, capsys):
    """Ubuntu's packages install well and bring nothing that runs: so they are not even tried."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "ubuntu"})
    assert install_servers.main(["--browser"]) == 1
    assert "stubs for snaps" in capsys.readouterr().err
    assert not (machine / "log").exists()
    assert install_servers.main() == 0


def test_a_system_without_a_name_is_not_ubuntu(machine, monkeypatch):
    """Where nothing tells the system, the packages are tried."""

    def unknown():
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", unknown)
    provide(machine, f"{ALL} chromium chromedriver")
    assert install_servers.main(["--browser"]) == 0
