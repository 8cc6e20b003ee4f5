"""Logs: one line per fact, fields that cannot be forged, a bound on what others can provoke."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from replicad.telemetry.log import FIELD_CHARACTERS_MAX, SELDOM_KEYS_MAX, SELDOM_S, Log, configure, get


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("replicad")
    before, levels = root.handlers[:], (root.level, ours.level)
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_text_is_a_sentence_and_fields(stream: io.StringIO) -> None:
    configure(style="text", level="info", stream=stream)
    get("replicad.services.links").info("link up", peer="7KQ2-F4TX", elapsed_s=0.25, path="a b", empty="")
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'INFO services.links: link up peer=7KQ2-F4TX elapsed_s=0.25 path="a b" empty=""\n'


def test_hostile_values_stay_on_their_line_and_in_their_field(stream: io.StringIO) -> None:
    configure(style="text", level="info", stream=stream)
    get("replicad.x").warning("bad frame", detail="x\n2026 INFO y: forged=1", forger="b=2", quoter='"', long="a" * 10_000)
    (line,) = stream.getvalue().splitlines()
    assert 'forger="b=2" quoter="\\"" long=aaa' in line
    assert '"x\\n2026 INFO y: forged=1"' in line
    assert len(line) < FIELD_CHARACTERS_MAX + 200


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("K\u00f6ln", "K\u00f6ln"),
        ("B\u00fcro K\u00f6ln \U0001f4e6", '"B\u00fcro K\u00f6ln \U0001f4e6"'),
        ('a "b" \\c=d', r'"a \"b\" \\c=d"'),
        ("\u00e4\n\r\t\x1b\x7f\x85\u2028\u2029", '"\u00e4\\n\\r\\t\\u001b\\u007f\\u0085\\u2028\\u2029"'),
        ("\u00e4\u202e\u2066\u200f\u061c", '"\u00e4\\u202e\\u2066\\u200f\\u061c"'),
        ("\u00e4\udce9\U000e0001", '"\u00e4\\udce9\\udb40\\udc01"'),
    ],
)
def test_letters_are_shown_and_what_could_deceive_is_escaped(stream: io.StringIO, value: str, shown: str) -> None:
    configure(style="text", level="info", stream=stream)
    get("replicad.x").info("seen", value=value)
    assert stream.getvalue().removesuffix("\n").partition(" value=")[2] == shown
    assert json.loads(shown if shown.startswith('"') else f'"{shown}"') == value


def test_the_journal_gets_priorities_and_no_time(stream: io.StringIO) -> None:
    configure(style="text", level="debug", journal=True, stream=stream)
    log = get("replicad.x")
    log.debug("one")
    log.error("two")
    assert stream.getvalue() == "<7>x: one\n<3>x: two\n"


def test_json_lines(stream: io.StringIO) -> None:
    configure(style="json", level="info", stream=stream)
    log = get("replicad.x")
    log.debug("below the level")
    log.info("stored", bytes=5, elapsed_s=0.5, level="mine", name=b"\xff")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    del first["time"]
    assert first == {"level": "info", "source": "x", "message": "stored", "bytes": 5, "elapsed_s": 0.5, "level_": "mine", "name": "b'\\xff'"}
    assert "ValueError: why" in second["traceback"]


def test_configuring_again_replaces_and_other_libraries_speak_from_warning_up(stream: io.StringIO) -> None:
    configure(style="text", level="info")
    configure(style="json", level="error", stream=stream)
    logging.getLogger("aiohttp.access").info("noise")
    logging.getLogger("aiohttp.server").warning("heard %s", "this")
    get("replicad.x").warning("below the level")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["heard this"]


def test_seldom_is_once_a_minute_for_each_key_and_counts_the_rest(stream: io.StringIO) -> None:
    configure(style="text", level="info", stream=stream)
    now = 0.0
    log = Log("replicad.x", monotonic=lambda: now)
    for _ in range(5):
        log.seldom("peer-a", "garbage", peer="a")
    log.seldom("peer-b", "garbage", peer="b")
    now = SELDOM_S
    log.seldom("peer-a", "garbage", peer="a")
    lines = [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == ["garbage peer=a", "garbage peer=b", "garbage peer=a left_out=4"]


def test_seldom_writes_as_many_lines_a_minute_and_at_the_level_that_it_is_told(stream: io.StringIO) -> None:
    configure(style="text", level="info", stream=stream)
    now = 0.0
    log = Log("replicad.x", monotonic=lambda: now)
    for now in (0.0, 1.0, 2.0, SELDOM_S - 1, SELDOM_S, SELDOM_S + 1, 3 * SELDOM_S):
        log.seldom("a", "link up", level=logging.INFO, at_most=2, at=now)
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == [f"INFO x: link up at={at}" for at in ("0", "1", "60 left_out=2", "61", "180")]


def test_seldom_remembers_a_bounded_number_of_keys(stream: io.StringIO) -> None:
    configure(style="text", level="error", stream=stream)
    log = Log("replicad.x", monotonic=lambda: 0.0)
    for key in range(3 * SELDOM_KEYS_MAX):
        log.seldom(key, "garbage")
    assert len(log._seldom) == SELDOM_KEYS_MAX
