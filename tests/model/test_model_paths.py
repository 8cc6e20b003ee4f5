"""Paths: every refusal of the specification by name, and the laws of the collision key."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicad.errors import InputError
from replicad.model import paths, unicode14

COMPOSED, DECOMPOSED = "Gr\u00fcn.pkg", "Gru\u0308n.pkg"
ASSIGNED = st.characters(codec="utf-8").filter(unicode14.is_assigned)
NAMES = st.text(ASSIGNED, min_size=1, max_size=12)


def is_legal(path: str) -> bool:
    try:
        paths.check(path)
    except InputError:
        return False
    return True


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "Firefox-145.0.pkg",
        "pkgs/apps/Foo Bar (1).pkg",
        ".hidden",
        "..almost/...three.dots",
        "a.b/c",
        " leading space",
        COMPOSED,
        DECOMPOSED,
        "日本語/パッケージ.pkg",
        "emoji 🧪.pkg",
        "\ue000private use",
        "x" * 255,
        "é" * 127 + "x",
        "/".join(["x" * 255] * 4)[:1024],
    ],
)
def test_legal_path_comes_back_as_written(path: str) -> None:
    assert paths.check(path) == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("", "it is empty", id="empty"),
        pytest.param("/etc/passwd", "relative", id="absolute"),
        pytest.param("/", "relative", id="root"),
        pytest.param("a//b", "empty segment", id="empty segment"),
        pytest.param("a/", "empty segment", id="trailing slash"),
        pytest.param(".", '"." is not allowed', id="dot"),
        pytest.param("a/./b", '"." is not allowed', id="dot inside"),
        pytest.param("..", '".." is not allowed', id="dot dot"),
        pytest.param("a/../b", '".." is not allowed', id="dot dot inside"),
        pytest.param("a/..", '".." is not allowed', id="dot dot at the end"),
        *[pytest.param(f"a{character}b", "is not allowed (none of", id=f"forbidden {character}") for character in '\\:*?"<>|'],
        pytest.param("C:\\Windows", "is not allowed (none of", id="Windows path"),
        pytest.param("a\x00b", "control character U+0000", id="NUL"),
        pytest.param("a\nb", "control character U+000A", id="line feed"),
        pytest.param("a\x1fb", "control character U+001F", id="last C0"),
        pytest.param("a\x7fb", "control character U+007F", id="delete"),
        pytest.param("a\x80b", "control character U+0080", id="first C1"),
        pytest.param("a\x9fb", "control character U+009F", id="last C1"),
        pytest.param("a.", "ends in a dot or a space", id="trailing dot"),
        pytest.param("a./b", "ends in a dot or a space", id="trailing dot inside"),
        pytest.param("a ", "ends in a dot or a space", id="trailing space"),
        pytest.param("a /b", "ends in a dot or a space", id="trailing space inside"),
        pytest.param("...", "ends in a dot or a space", id="three dots"),
        pytest.param("x" * 256, "256 bytes of UTF-8, at most 255", id="long segment"),
        pytest.param("é" * 128, "256 bytes of UTF-8, at most 255", id="long segment in bytes"),
        pytest.param("/".join(["x" * 204] * 5) + "y", "1025 bytes of UTF-8, at most 1024", id="long path"),
        pytest.param("a\ud800b", "lone surrogate at character 1", id="high surrogate"),
        pytest.param("\udc00", "lone surrogate at character 0", id="low surrogate"),
        pytest.param("a\u0378", "U+0378 is not assigned in Unicode 14.0", id="never assigned"),
        pytest.param("a\ufdd0", "U+FDD0 is not assigned", id="noncharacter"),
        pytest.param("a\U0010ffff", "U+10FFFF is not assigned", id="last code point"),
        pytest.param("a\U0001fae8", "U+1FAE8 is not assigned", id="assigned in Unicode 15.0"),
        pytest.param("a\U0002ebf0", "U+2EBF0 is not assigned", id="assigned in Unicode 15.1"),
        pytest.param("a\ua7dc", "U+A7DC is not assigned", id="assigned in Unicode 16.0, with a folding"),
    ],
)
def test_refused_path_says_why(path: str, reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        paths.check(path)
    assert reason in refusal.value.message
    assert refusal.value.error_code == "bad-path"
    assert refusal.value.message.isprintable()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        pytest.param("Gr\u00fcn/\u65e5?", "'Gr\u00fcn/\u65e5?'", id="letters"),
        pytest.param("a\x1b[31m?", "'a\\x1b[31m?'", id="terminal escape"),
        pytest.param("a\u202eb?", "'a\\u202eb?'", id="right-to-left override"),
        pytest.param("a\u2066b?", "'a\\u2066b?'", id="left-to-right isolate"),
        pytest.param("a\ud800b", "'a\\ud800b'", id="lone surrogate"),
    ],
)
def test_a_refused_path_is_shown_with_its_letters_and_without_what_would_rearrange_the_message(path: str, shown: str) -> None:
    with pytest.raises(InputError) as refusal:
        paths.check(path)
    assert refusal.value.message.startswith(f"path {shown}: ")


def test_long_path_is_cut_in_the_message() -> None:
    with pytest.raises(InputError) as refusal:
        paths.check("x" * 100_000)
    assert len(refusal.value.message) < 300


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Foo.pkg", "foo.PKG"),
        (COMPOSED, DECOMPOSED),
        (COMPOSED.upper(), DECOMPOSED),
        ("straße", "STRASSE"),
        ("ΜΆΪΟΣ", "μάϊος"),
        ("ﬁle", "FIle"),
        ("\u212bngstr\u00f6m", "a\u030angstro\u0308m"),
        ("\u01f0", "J\u030c"),
    ],
)
def test_names_that_are_one(one: str, other: str) -> None:
    assert paths.key(one) == paths.key(other)


@pytest.mark.parametrize(("one", "other"), [("a", "ab"), ("resume", "résumé"), ("i", "ı"), ("1", "１"), ("a/b", "a b")])
def test_names_that_are_two(one: str, other: str) -> None:
    assert paths.key(one) != paths.key(other)


@given(NAMES)
@example("\u01f0")
@example("\u0345\u0301")
@example("\u1e9e\u0130")
def test_key_is_idempotent_and_blind_to_form_and_case(name: str) -> None:
    key = paths.key(name)
    assert paths.key(key) == key
    assert unicodedata.is_normalized("NFC", key)
    for form in ("NFC", "NFD"):
        assert paths.key(unicodedata.normalize(form, name)) == key
    assert paths.key(unicodedata.normalize("NFC", name).casefold()) == key


def test_every_single_character_has_an_idempotent_key() -> None:
    broken = [code for code in range(0x110000) if unicode14.is_assigned(chr(code)) and paths.key(paths.key(chr(code))) != paths.key(chr(code))]
    assert broken == []


@given(NAMES)
def test_key_of_a_legal_path_has_the_same_number_of_segments(name: str) -> None:
    if is_legal(name):
        assert paths.key(name).count("/") == name.count("/")


def legal_by_definition(path: str) -> bool:
    """The specification's sentence, read aloud."""
    if any(0xD800 <= ord(character) < 0xE000 or not unicode14.is_assigned(character) for character in path):
        return False
    if any(unicodedata.category(character) == "Cc" or character in '\\:*?"<>|' for character in path):
        return False
    segments = path.split("/")
    return len(path.encode()) <= 1024 and all(segment and segment[-1] not in ". " and len(segment.encode()) <= 255 for segment in segments)


@given(st.lists(st.sampled_from([*'aé/. \\:*?"<>|\x00\x7f\x85', "\u0378", "\ud800", "\u2028", "x" * 100, "é" * 60]), max_size=20))
def test_check_agrees_with_the_definition(pieces: list[str]) -> None:
    path = "".join(pieces)
    assert is_legal(path) == legal_by_definition(path)


def test_the_whole_mapping_is_pinned() -> None:
    """The same on every Python: what Unicode 14 assigns, and what each of it folds to. A different digest means that nodes would disagree about names."""
    assigned = [chr(code) for code in range(0x110000) if unicode14.is_assigned(chr(code)) and not 0xD800 <= code < 0xE000]
    mapping = hashlib.sha256()
    for character in assigned:
        mapping.update(f"{ord(character):x} {paths.key(character)} {paths.key('a' + character)}\n".encode())
    assert len(assigned) == 144_762 + 137_468
    assert mapping.hexdigest() == "4ef78089af667afabf87cb6b567cf60f229c569663450fc59f57333285262d18"


def test_the_table_is_that_of_unicode_14() -> None:
    """This Python's own table differs exactly by what later versions added."""
    added = [code for code in range(0x110000) if unicode14.is_assigned(chr(code)) != (unicodedata.category(chr(code)) != "Cn")]
    assert bool(added) == (unicodedata.unidata_version != "14.0.0")
    assert not any(unicode14.is_assigned(chr(code)) for code in added)


@pytest.mark.parametrize(
    ("key", "prefix", "below"),
    [
        ("a", "a", True),
        ("a/b", "a", True),
        ("ab", "a", False),
        ("ab/c", "a", False),
        ("a", "a/b", False),
        ("a/b/c", "a/b", True),
        ("a/bc", "a/b", False),
        ("a", "", True),
    ],
)
def test_is_below_goes_by_segments(key: str, prefix: str, *, below: bool) -> None:
    assert paths.is_below(key, prefix) is below


def test_parents_outermost_first() -> None:
    assert paths.parents("a/b/c") == ["a", "a/b"]
    assert paths.parents("a") == []


@given(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5))
def test_a_key_is_below_each_of_its_parents_and_only_those_shorter(segments: list[str]) -> None:
    key = "/".join(segments)
    assert all(paths.is_below(key, parent) and not paths.is_below(parent, key) for parent in paths.parents(key))
