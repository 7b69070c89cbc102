"""Traffic profiles: what makes sense in one, and that a file gives back what was written to it."""

from __future__ import annotations

import math
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache import ConfigurationError
from shardcache.core.lifetimes import MAX_SECONDS
from shardcache.testing import Profile
from shardcache.testing.profiles import OPERATIONS

SHOP = """
name = "shop"
source = "a paper"
keys = 10000
alpha = 1.07
miss_ratio = 0.2004
key_size = 17
sizes = [[1936, 1.0]]
ttls = [["1.8h", 0.28], ["2h", 0.12], [20, 0.1], ["10m", 0.1], ["4d", 0.2], ["never", 0.2]]
batch = 24
batch_share = 0.2
[mix]
get = 0.82
set = 0.18
"""

FIELDS = {
    "name": "shop",
    "keys": 10_000,
    "alpha": 1.07,
    "key_size": 17,
    "sizes": [(1936, 1.0)],
    "ttls": [(6480.0, 1.0)],
    "mix": {"get": 0.82, "set": 0.18},
    "miss_ratio": 0.2,
}


def shop(**changes):
    """Return a profile that makes sense, but for these changes."""
    return Profile(**{**FIELDS, **changes})


def faults_of(**changes):
    """Return the faults found in a profile with these changes."""
    with pytest.raises(ConfigurationError) as raised:
        shop(**changes)
    return raised.value.faults


@pytest.fixture
def file(tmp_path):
    """Return the path of a file that is not there yet."""
    return tmp_path / "traffic.toml"


def load_faults(file, text):
    """Return the faults found in a file, each without the file's name, which it must have."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        Profile.load(file)
    assert all(fault.startswith(f"{file}: ") for fault in raised.value.faults)
    return [fault.removeprefix(f"{file}: ") for fault in raised.value.faults]


class TestShares:
    """Shares, however they are given."""

    def test_their_sum_is_one(self):
        """Each list of shares is divided by its own sum."""
        profile = shop(
            sizes=[(10, 3), (20, 1)], ttls=[(60, 2), (None, 6)], mix={"get": 9, "set": 1}
        )
        assert profile.sizes == ((10, 0.75), (20, 0.25))
        assert profile.ttls == ((None, 0.75), (60.0, 0.25))
        assert dict(profile.mix) == {"get": 0.9, "set": 0.1}

    def test_equal_values_are_one(self):
        """A value that is given twice has the share of both."""
        assert shop(sizes=[(10, 1), (20, 1), (10, 2)]).sizes == ((10, 0.75), (20, 0.25))
        assert shop(ttls=[("1m", 1), (60, 1)]).ttls == ((60.0, 1.0),)

    @given(st.lists(st.floats(0, 1e12), min_size=1).filter(any))
    def test_to_normalise_twice_changes_nothing(self, shares):
        """A profile made of a profile's fields is equal to it."""
        once = shop(sizes=list(enumerate(shares)))
        assert math.isclose(math.fsum(share for _, share in once.sizes), 1.0, rel_tol=1e-8)
        assert shop(sizes=once.sizes) == once

    def test_the_order_in_which_they_are_given_does_not_matter(self):
        """Profiles of the same traffic are equal, and have the same hash."""
        one = shop(sizes=[(10, 1), (20, 1)], mix={"get": 0.5, "set": 0.5})
        other = shop(sizes=[(20, 1), (10, 1)], mix={"set": 0.5, "get": 0.5})
        assert (one, hash(one)) == (other, hash(other))

    def test_they_cannot_be_changed(self):
        """A profile is frozen, its mix too, and it does not share the caller's dict."""
        mix = {"get": 1.0}
        profile = shop(mix=mix)
        mix["get"] = 0.5
        assert profile.mix["get"] == 1.0
        with pytest.raises(TypeError):
            profile.mix["get"] = 0.5
        with pytest.raises(AttributeError):
            profile.keys = 1


class TestFaults:
    """Fields that make no sense."""

    @pytest.mark.parametrize(
        ("field", "value", "fault"),
        [
            ("name", 7, "name must be text, not 7"),
            ("name", "\ud800", "name is not valid Unicode"),
            ("keys", 0, "keys must be a whole number from 1 to 1e+15, not 0"),
            ("keys", 10.0, "keys must be a whole number from 1 to 1e+15, not 10.0"),
            ("keys", True, "keys must be a whole number from 1 to 1e+15, not True"),
            ("alpha", math.nan, "alpha must be a number of at least 0, not nan"),
            ("alpha", math.inf, "alpha must be a number of at least 0, not inf"),
            ("alpha", -0.1, "alpha must be a number of at least 0, not -0.1"),
            ("alpha", 10**400, "alpha must be a number of at least 0, not so large a number"),
            ("key_size", 0, "key_size must be a whole number from 1 to 1e+15, not 0"),
            ("sizes", [], "sizes must not be empty"),
            ("sizes", 7, "sizes must be pairs of a value and its share, not 7"),
            ("sizes", [7], "sizes must be pairs of a value and its share, not list"),
            ("sizes", [(7, 0)], "sizes must have a share above zero"),
            ("sizes", [(-1, 1)], "sizes [0] must be a whole number from 0 to 1e+15, not -1"),
            (
                "sizes",
                [(7, 1), (8, -1)],
                "sizes [1] share must be a number from 0 to 1e+12, not -1",
            ),
            ("ttls", [], "ttls must not be empty"),
            ("mix", {}, "mix must not be empty"),
            ("mix", [("get", 1)], "mix must be a table of operations and their shares, not list"),
            (
                "mix",
                {"get": "all"},
                "mix share of 'get' must be a number from 0 to 1e+12, not 'all'",
            ),
            ("batch", -1, "batch must be a whole number from 0 to 1e+15, not -1"),
            ("batch_share", 0.2, "batch_share is 0.2, but batch is 0"),
            ("batch_share", 1.1, "batch_share must be a number from 0 to 1, not 1.1"),
            ("miss_ratio", 1.1, "miss_ratio must be a number from 0 to 1, not 1.1"),
            ("miss_ratio", None, "miss_ratio must be a number from 0 to 1, not None"),
            ("source", None, "source must be text, not None"),
        ],
    )
    def test_a_fault_names_its_field(self, field, value, fault):
        """With what is allowed and what was given."""
        assert faults_of(**{field: value}) == (fault,)

    @pytest.mark.parametrize(
        "ttl", ["5 weeks", "1e3s", "-1s", "s", "", 0, -1, math.nan, True, "9999d"]
    )
    def test_what_is_no_lifetime_is_a_fault(self, ttl):
        """The message shows what is one."""
        (fault,) = faults_of(ttls=[(None, 1), (ttl, 1)])
        assert fault.startswith(
            "ttls [1] must be above zero and at most ten years, such as 20s, 10m,"
        )

    def test_unknown_operations_are_named_with_the_known_ones(self):
        """A batch is no operation of its own: its keys count as those of a `get`."""
        (fault,) = faults_of(mix={"get_many": 1, "get": 1})
        assert fault == f"mix has no operation 'get_many' (known: {', '.join(OPERATIONS)})"

    def test_all_faults_are_reported_at_once(self):
        """Nobody has to repair one to see the next."""
        faults = faults_of(keys=0, sizes=[], mix={"gte": 1, "set": -1}, miss_ratio=2)
        assert [fault.split()[0] for fault in faults] == [
            "keys",
            "sizes",
            "mix",
            "mix",
            "miss_ratio",
        ]


class TestFiles:
    """Profiles in files."""

    def test_a_profile_is_loaded(self, file):
        """Each field is read, and lifetimes in the words of people."""
        file.write_text(SHOP, encoding="utf-8")
        assert Profile.load(file) == shop(
            source="a paper",
            ttls=[(6480, 28), (7200, 12), (20, 10), (600, 10), (345_600, 20), (None, 20)],
            batch=24,
            batch_share=0.2,
            miss_ratio=0.2004,
        )

    def test_what_may_be_left_out(self, file):
        """The file's name stands in for the profile's; without batches there are none."""
        kept = [line for line in SHOP.splitlines() if not line.startswith(("name", "sou", "batch"))]
        file.write_text("\n".join(kept), encoding="utf-8")
        profile = Profile.load(str(file))
        assert (profile.name, profile.source) == ("traffic", "")
        assert (profile.batch, profile.batch_share) == (0, 0.0)

    def test_a_file_that_is_not_there(self, file):
        """It is named, with what the system says."""
        with pytest.raises(ConfigurationError) as raised:
            Profile.load(file)
        assert str(raised.value) == f"{file}: cannot be read: No such file or directory"

    def test_a_file_that_is_not_toml(self, file):
        """The line is told."""
        (fault,) = load_faults(file, "keys = 1\nalpha = \n")
        assert fault.startswith("is not TOML: ")
        assert "at line 2" in fault
        file.write_bytes(b'name = "\xff"')
        with pytest.raises(ConfigurationError, match=r"traffic\.toml: is not UTF-8"):
            Profile.load(file)

    def test_every_fault_of_a_file_is_reported_with_its_name(self, file):
        """Fields that are unknown, missing or of a wrong type."""
        text = SHOP.replace("keys = 10000", "keyz = 10000").replace("[[1936, 1.0]]", '"large"')
        faults = load_faults(file, text.replace('"2h"', '"2 fortnights"'))
        assert faults[0].startswith("no field 'keyz' (known: name, keys, alpha,")
        assert faults[1] == "keys is missing"
        assert faults[2] == "sizes must be pairs of a value and its share, not 'large'"
        assert faults[3].startswith("ttls [1] must be above zero")
        assert len(faults) == 4

    def test_it_is_written_to_be_read(self):
        """Lifetimes in their largest unit, the largest shares first."""
        profile = shop(
            ttls=[(86_400, 1), (None, 2), (100, 3), (0.25, 4)],
            mix={"set": 1, "get": 3},
            source='"q"',
        )
        assert profile.dumps() == (
            'name = "shop"\n'
            'source = "\\"q\\""\n'
            "keys = 10000\n"
            "alpha = 1.07\n"
            "miss_ratio = 0.2\n"
            "key_size = 17\n"
            "sizes = [[1936, 1.0]]\n"
            'ttls = [[0.25, 0.4], ["100s", 0.3], ["never", 0.2], ["1d", 0.1]]\n'
            "batch = 0\n"
            "batch_share = 0.0\n"
            "\n"
            "[mix]\n"
            "get = 0.75\n"
            "set = 0.25\n"
        )

    def test_whole_numbers_are_numbers_with_a_point(self):
        """What is written does not depend on how a number was given."""
        profile = shop(alpha=1, miss_ratio=0)
        assert "alpha = 1.0\nmiss_ratio = 0.0\n" in profile.dumps()

    def test_a_long_list_has_a_line_for_each(self):
        """So that a change of one is a change of one line."""
        lines = shop(sizes=[(size, 1) for size in range(5)]).dumps().splitlines()
        begin = lines.index("sizes = [")
        assert lines[begin + 1 : begin + 7] == [f"    [{size}, 0.2]," for size in range(5)] + ["]"]


texts = st.text(st.characters(exclude_categories=["Cs"]))
shares = st.floats(0, 1e12)
lifetimes = (
    st.none()
    | st.floats(0, MAX_SECONDS, exclude_min=True)
    | st.integers(1, 3600).map(lambda n: n * 6.0)
)


def pairs(values):
    """Return lists of values with their shares, which are not all zero."""
    listed = st.lists(st.tuples(values, shares), min_size=1)
    return listed.filter(lambda found: any(share for _, share in found))


profiles = st.builds(
    Profile,
    name=texts,
    source=texts,
    keys=st.integers(1, 10**15),
    alpha=st.floats(0, allow_infinity=False),
    key_size=st.integers(1, 10**15),
    sizes=pairs(st.integers(0, 10**15)),
    ttls=pairs(lifetimes),
    mix=pairs(st.sampled_from(OPERATIONS)).map(dict).filter(lambda mix: any(mix.values())),
    batch=st.integers(1, 10**15),
    batch_share=st.floats(0, 1),
    miss_ratio=st.floats(0, 1),
)


@given(profile=profiles)
@example(profile=shop(name='\x7f\x00\r\n\t"\\', source="\u2028é💥"))
def test_a_file_gives_back_the_profile(tmp_path_factory, profile):
    """Whatever is in it, to the last bit."""
    file = tmp_path_factory.getbasetemp() / "round-trip.toml"
    text = profile.dumps()
    tomllib.loads(text)
    file.write_bytes(text.encode())
    assert Profile.load(file) == profile
