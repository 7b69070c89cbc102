"""The names of keys: no two are confused, and every server takes a plain one."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache.core.keys import (
    KeySpace,
    caller_key,
    check_items,
    check_keys,
    hash_name,
    is_plain,
)
from shardcache.core.reserved_keys import ESCAPED, HASHED, RESERVED
from shardcache.errors import ConfigurationError, InvalidKeyError

raws = st.binary(min_size=1, max_size=40)
namespaces = st.text(alphabet="a:1~é", max_size=6)
# Keys made to be mistaken for one with a namespace, or for one of ours.
tricky = st.lists(
    st.sampled_from([b"4", b"1", b"12", b":", b"a", b"shop", b"~sc:", b"~", b"h:", b"k:", b"\n"]),
    min_size=1,
    max_size=8,
).map(b"".join)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_a_text_and_its_utf_8_are_one_key(text):
    """A text and its UTF-8 bytes are one key."""
    assert KeySpace().encode(text) == KeySpace().encode(text.encode()) == text.encode()


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("", "empty"),
        (b"", "empty"),
        (None, "NoneType"),
        (True, "bool"),
        (7, "int"),
        (("a",), "tuple"),
        (bytearray(b"k"), "bytearray"),
        ("\ud800", "Unicode"),
    ],
    ids=repr,
)
def test_an_invalid_key_is_refused(key, fault):
    """The error says what the key was."""
    with pytest.raises(InvalidKeyError, match=fault):
        KeySpace("shop").encode(key)


@pytest.mark.parametrize("namespace", ["", "shop"])
@pytest.mark.parametrize(
    "keys",
    [[], ["a", "user:1"], ["a", b"b"], ["é", "~"], ["4:shop:a", "~sc:k"], ["9", ":"]],
    ids=repr,
)
def test_many_keys_are_encoded_as_each_alone(namespace, keys):
    """With their names, whatever they are."""
    space = KeySpace(namespace)
    raws = [space.encode(key) for key in keys]
    assert space.encode_all(keys) == (raws, [space.canonical(raw) for raw in raws])


@pytest.mark.parametrize("key", ["", b"", "\ud800", 7, None], ids=repr)
def test_an_invalid_key_is_refused_among_many(key):
    """The error is that of the key alone."""
    space = KeySpace()
    with pytest.raises(InvalidKeyError) as alone:
        space.encode(key)
    with pytest.raises(InvalidKeyError) as among:
        space.encode_all(["a", key])
    assert str(among.value) == str(alone.value)


def test_subclasses_are_keys_by_their_content():
    """Subclasses of text and bytes name what their plain content names."""

    class Name(StrEnum):
        USER = "user:1"

    class Raw(bytes):
        """Bytes of another type."""

    assert KeySpace().encode(Name.USER) == b"user:1"
    assert type(KeySpace().encode(Raw(b"k"))) is bytes


@given(namespaces, namespaces, raws | tricky, raws | tricky)
@example("", "shop", b"4:shop:k", b"k")
@example("", "", b"~sc:k:~sc:x", b"~sc:x")
@example("a", "a:b", b"b:c", b"c")
@example("", "", b"~sc:k:4:shop:k", b"4:shop:k")
def test_no_two_keys_share_a_name(one, other, key, another):
    """Two pairs of namespace and key have the same name only when they are the same pair."""
    names_equal = KeySpace(one).canonical(key) == KeySpace(other).canonical(another)
    assert names_equal == ((one, key) == (other, another))


@given(st.tuples(st.just(""), namespaces), tricky)
def test_a_key_without_a_namespace_is_in_no_other(both, rest):
    """Not even a key written like another tenant's name."""
    alone, tenant = both
    if tenant:
        name = KeySpace(tenant).canonical(rest)
        assert KeySpace(alone).canonical(name) != name


@given(namespaces, raws | tricky)
@example("", b"~sc:h:0a74d9f8dc440af6bd63bbaf0c17cc5d")
def test_reserved_names_are_never_a_callers(namespace, key):
    """No caller's key has the name of a hash form; escapes alone begin as reserved ones."""
    name = KeySpace(namespace).canonical(key)
    assert not name.startswith(RESERVED) or name == ESCAPED + key
    assert not name.startswith(HASHED)


@given(namespaces, raws | tricky)
def test_a_name_leads_back_to_its_key(namespace, key):
    """Whatever the key begins with."""
    space = KeySpace(namespace)
    assert space.raw(space.canonical(key)) == key


@given(raws)
def test_ordinary_keys_keep_their_names(key):
    """Without a namespace a key is sent as it is, so that other clients find it."""
    if not key.startswith(RESERVED) and not re.match(rb"[0-9]+:", key):
        assert KeySpace().canonical(key) == key


def test_a_number_in_front_is_no_namespace():
    """`42:profile` keeps its name."""
    for key in (b"42:profile", b"1:", b"1:a", b"0::", b"01:a:", b"999999999999:a:", b"1:ab:c"):
        assert KeySpace().canonical(key) == key
    assert KeySpace().canonical(b"1:a:b") == b"~sc:k:1:a:b"


@given(namespaces, raws | tricky.filter(bool))
@example("", b"4:shop:k")
@example("", b"~sc:l:k")
@example("4:shop", b"1:a:b")
def test_a_name_has_the_caller_s_key(namespace, key):
    """Whatever stands in front of it."""
    assert caller_key(KeySpace(namespace).canonical(key)) == key


def test_a_key_space_is_shown_by_its_namespace():
    """As the bytes that stand in front of keys."""
    assert repr(KeySpace("é")) == "<KeySpace b'\\xc3\\xa9'>"
    assert repr(KeySpace()) == "<KeySpace b''>"


def test_namespaces_may_be_bytes():
    """A namespace counts by its bytes, as a key does."""
    assert KeySpace("é").canonical(b"k") == KeySpace("é".encode()).canonical(b"k")
    with pytest.raises(ConfigurationError, match="namespace"):
        KeySpace("\ud800")


@given(st.binary(min_size=1, max_size=3) | st.binary(min_size=240, max_size=260))
@example(b" ")
@example(b"a" * 250)
@example(b"a" * 251)
@example(b"\x7f")
@example(b"~")
@example(b"!")
def test_plain_is_what_every_server_takes(name):
    """Printable ASCII without blanks, of at most 250 bytes."""
    assert is_plain(name) == bool(re.fullmatch(rb"[!-~]{1,250}", name))


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_hash_forms_are_plain_and_distinct(one, other):
    """Any name has a short plain form of its own."""
    assert is_plain(hash_name(one))
    assert (hash_name(one) == hash_name(other)) == (one == other)


def test_hash_forms_never_change():
    """The form is where values are found, so it is fixed."""
    assert hash_name(b"two words") == b"~sc:h:0a74d9f8dc440af6bd63bbaf0c17cc5d"


@given(namespaces, raws | tricky.filter(bool))
@example("", b"4:shop:cart")
@example("", ESCAPED + b"a")
def test_a_canonical_name_leads_back_to_its_key(namespace, raw):
    """In its own namespace, and in no other."""
    spaces = KeySpace(namespace), KeySpace(namespace + "b"), KeySpace("x" * 9)
    name = spaces[0].canonical(raw)
    assert [space.original(name) for space in spaces] == [raw, None, None]


@pytest.mark.parametrize("keys", ["user:7", b"user:7", bytearray(b"k"), 7, None], ids=repr)
def test_text_is_no_list_of_keys(keys):
    """It would be a list of its letters; the error names the call and the way out."""
    kind = type(keys).__name__
    with pytest.raises(
        TypeError, match=rf"^get_many: keys must be a list, not {kind}; write \[key\]"
    ):
        check_keys("get_many", keys)
    for listed in (["k"], ("k",), {"k"}, {"k": 1}, iter("k")):
        check_keys("get_many", listed)


@pytest.mark.parametrize("items", ["user:7", [("user:7", 1)], {"user:7"}, None], ids=repr)
def test_pairs_are_no_mapping(items):
    """Whatever has keys is one."""
    kind = type(items).__name__
    with pytest.raises(TypeError, match=f"^f: must be a mapping from key to value, not {kind}$"):
        check_items("f", items)
    check_items("f", {"user:7": 1})
