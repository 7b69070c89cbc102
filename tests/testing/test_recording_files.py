"""When and where a recorded profile is written, and what forked children write."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from pathlib import Path

import pytest

from shardcache import Client, ConfigurationError
from shardcache.testing import Profile, ProfileRecorder
from shardcache.testing.waiting import eventually
from testing.streams import access, run_program


@pytest.fixture
def file(tmp_path):
    """Return the path of a file that is not there yet."""
    return tmp_path / "shop.toml"


class TestFiles:
    """When and where a profile is written."""

    def test_a_recorder_that_heard_nothing_says_so(self, file):
        """It was probably not passed to the client."""
        with pytest.raises(ConfigurationError, match=r"shop\.toml: nothing was recorded; is the"):
            ProfileRecorder(file).write()
        with pytest.raises(ConfigurationError, match="nothing"), ProfileRecorder(file):
            pass
        assert not file.exists()

    def test_a_profile_is_written_at_any_time(self, file):
        """It is of all that has been recorded so far, and replaces the one before."""
        with ProfileRecorder(file) as recorder:
            recorder.keys_accessed(access(b"a", size=5))
            assert recorder.write() == Profile.load(file)
            recorder.keys_accessed(access(b"b", size=5))
            assert recorder.write().keys == 2
            recorder.keys_accessed(access(b"c", size=5))
        assert Profile.load(file).keys == 3
        recorder.keys_accessed(access(b"d"))
        assert recorder.write().keys == 3

    def test_a_block_that_raises_writes_what_there_is(self, file):
        """And its error is what the caller sees, also when there is nothing."""
        recorder = ProfileRecorder(file)
        recorder.keys_accessed(access(b"a"))
        with pytest.raises(KeyError), recorder:
            raise KeyError
        assert Profile.load(file).keys == 1
        with pytest.raises(KeyError), ProfileRecorder(file):
            raise KeyError

    def test_the_number_of_the_process_is_in_the_path(self, tmp_path):
        """Also in the name of the profile, and in a directory."""
        (tmp_path / str(os.getpid())).mkdir()
        recorder = ProfileRecorder(f"{tmp_path}/{{pid}}/shop-{{pid}}.toml")
        recorder.keys_accessed(access(b"a"))
        profile = recorder.write()
        assert profile.name == f"shop-{os.getpid()}"
        assert Profile.load(tmp_path / str(os.getpid()) / f"shop-{os.getpid()}.toml") == profile

    def test_it_is_written_where_the_program_began(self, tmp_path, monkeypatch):
        """A relative path is not that of a directory to which it moved later."""
        monkeypatch.chdir(tmp_path)
        recorder = ProfileRecorder("shop.toml")
        monkeypatch.chdir("/")
        recorder.keys_accessed(access(b"a"))
        recorder.write()
        assert (tmp_path / "shop.toml").exists()

    def test_arguments_that_cannot_work_are_reported_at_once(self, tmp_path):
        """Before hours of traffic are recorded for nothing."""
        with pytest.raises(ConfigurationError) as raised:
            ProfileRecorder(tmp_path / "none" / "shop.toml", seconds=0, max_keys=0)
        assert raised.value.faults == (
            f"path: there is no directory '{tmp_path}/none'",
            "max_keys: must be a whole number of at least 1, not 0",
            "seconds: must be above zero",
        )

    def test_a_directory_that_has_gone_is_named(self, tmp_path, caplog):
        """The call says so; at the end of a block that raised, the log does."""
        (tmp_path / "away").mkdir()
        recorder = ProfileRecorder(tmp_path / "away" / "shop.toml")
        recorder.keys_accessed(access(b"a"))
        (tmp_path / "away").rmdir()
        fault = "away/shop.toml: cannot be written: No such file or directory"
        with pytest.raises(ConfigurationError, match=fault):
            recorder.write()
        with caplog.at_level(logging.ERROR, "shardcache"), pytest.raises(KeyError), recorder:
            raise KeyError
        assert fault in caplog.text

    def test_a_file_is_replaced_in_one_step(self, file, monkeypatch):
        """What was there stays until all of the new one is, and nothing is left beside it."""
        recorder = ProfileRecorder(file)
        recorder.keys_accessed(access(b"a", size=5))
        old = recorder.write()
        recorder.keys_accessed(access(b"b", size=5))
        real = Path.replace

        def fail(draft, target):
            assert "keys = 2" in draft.read_text(encoding="utf-8")
            assert Profile.load(target) == old
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(ConfigurationError, match="No space left on device"):
            recorder.write()
        monkeypatch.setattr(Path, "replace", real)
        assert [path.name for path in file.parent.iterdir()] == ["shop.toml"]
        assert Profile.load(file) == old
        recorder.write()


class TestEnds:
    """What ends a recording."""

    def test_it_is_written_when_the_program_ends(self, file):
        """Without another line of code."""
        assert run_program(file, "client.get('k')") == ""
        assert Profile.load(file).mix == {"get": 1.0}

    def test_a_program_without_traffic_writes_nothing(self, file):
        """And says nothing."""
        assert run_program(file) == ""
        assert not file.exists()

    def test_what_was_written_before_is_not_written_again(self, file):
        """A file that somebody has taken away meanwhile does not come back."""
        assert (
            run_program(file, "client.get('k')", "recorder.write()", "recorder.path.unlink()") == ""
        )
        assert not file.exists()

    def test_a_program_ends_well_when_it_cannot_be_written(self, file):
        """The log has it."""
        (file.parent / "away").mkdir()
        said = run_program(
            file.parent / "away" / "shop.toml",
            "import logging; logging.basicConfig(format='%(message)s')",
            *("client.get('k')", "recorder.path.parent.rmdir()"),
        )
        assert said.startswith("traffic profile not written: ")
        assert "Traceback" not in said

    def test_it_ends_seconds_after_the_first_access(self, file):
        """Later accesses are not recorded."""
        recorder = ProfileRecorder(file, seconds=0.05)
        assert recorder._timer is None
        recorder.keys_accessed(access(b"a"))
        assert recorder._timer.daemon
        eventually(file.exists, within=30)
        recorder.keys_accessed(access(b"b"))
        assert recorder.write().keys == 1
        assert repr(recorder) == f"<ProfileRecorder [stopped, 1 accesses] {file}>"

    def test_a_block_that_ends_sooner_needs_no_timer_any_more(self, file):
        """No thread is left of it."""
        with ProfileRecorder(file, seconds=1000) as recorder:
            recorder.keys_accessed(access(b"a"))
        recorder._timer.join(30)
        assert not recorder._timer.is_alive()


def in_child(work):
    """Return the exit status of a forked child that does `work`, and is ended when that hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child ends here, whatever happens
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has none")
class TestForks:
    """Children that were forked while traffic is recorded."""

    def test_a_child_records_its_own_traffic(self, tmp_path):
        """From nothing, into its own file; the parent goes on with what it has."""
        recorder = ProfileRecorder(tmp_path / "shop-{pid}.toml")
        client = Client("memory://a", observers=[recorder])
        client.delete_many(["a", "b", "c"])

        def work():
            client.set("d", b"12345")
            assert recorder.write().mix == {"set": 1.0}

        assert in_child(work) == 0
        client.delete("a")
        recorder.write()
        loaded = [Profile.load(path) for path in tmp_path.glob("shop-*.toml")]
        assert sorted((profile.keys, dict(profile.mix)) for profile in loaded) == [
            (1, {"set": 1.0}),
            (3, {"delete": 1.0}),
        ]

    def test_a_child_is_never_stuck(self, file):
        """A thread of the parent may be in the midst of an event, and does not live in the child."""
        recorder = ProfileRecorder(file)
        recorder.keys_accessed(access(b"a"))
        held, done = threading.Event(), threading.Event()

        def hold():
            with recorder._lock, recorder._writing:
                held.set()
                done.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(60)

        def work():
            recorder.keys_accessed(access(b"b"))
            assert recorder.write().keys == 1

        try:
            assert in_child(work) == 0
        finally:
            done.set()
            thread.join()
        recorder.write()

    def test_a_child_has_its_own_time(self, tmp_path):
        """What ended in the parent, after so many seconds, begins anew in it."""
        recorder = ProfileRecorder(tmp_path / "shop-{pid}.toml", seconds=0.05)
        recorder.keys_accessed(access(b"a"))
        eventually(recorder.path.exists, within=30)

        def work():
            recorder.keys_accessed(access(b"b"))
            eventually(recorder.path.exists, within=15)

        assert in_child(work) == 0
        assert len([*tmp_path.glob("shop-*.toml")]) == 2

    def test_a_child_forked_after_the_end_records_nothing(self, file):
        """A block that has ended has ended for all."""
        with ProfileRecorder(file) as recorder:
            recorder.keys_accessed(access(b"a"))

        def work():
            recorder.keys_accessed(access(b"b"))
            with pytest.raises(ConfigurationError):
                recorder.write()

        assert in_child(work) == 0
