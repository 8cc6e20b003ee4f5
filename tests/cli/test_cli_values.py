"""Values as people write them, and how they are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from replicad.cli import output, values

CONTEXT, PARAMETER = click.Context(click.Command("x")), click.Option(["--x"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("600s", 600.0), ("10m", 600.0), ("10 min", 600.0), ("24h", 86400.0), ("2d", 172800.0), ("1.5h", 5400.0)]
)
def test_a_duration(text: str, seconds: float) -> None:
    assert values.duration(CONTEXT, PARAMETER, text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1w", "h", "1e9", "10 m s", "9" * 40, "nan"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration"):
        values.duration(CONTEXT, PARAMETER, text)


@pytest.mark.parametrize("text", ["all", "1", "99999", "1%", "50%", "100%"])
def test_node_counts(text: str) -> None:
    assert values.nodes(CONTEXT, PARAMETER, text) == text


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-1", "ALL", "1.5", "100000", "50 %"])
def test_not_node_counts(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write all"):
        values.nodes(CONTEXT, PARAMETER, text)


def test_a_name_in_a_share() -> None:
    assert values.in_share(CONTEXT, PARAMETER, "munki/pkgs/a b.pkg") == ("munki", "pkgs/a b.pkg")


@pytest.mark.parametrize("text", ["", "munki", "munki/", "/a.pkg"])
def test_not_a_name_in_a_share(text: str) -> None:
    with pytest.raises(click.BadParameter, match="SHARE/PATH"):
        values.in_share(CONTEXT, PARAMETER, text)


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, (None, "")), ("munki", ("munki", "")), ("munki/", ("munki", "")), ("munki/pkgs/", ("munki", "pkgs")), ("munki/pkgs/a", ("munki", "pkgs/a"))],
)
def test_a_place(text: str | None, found: tuple[str | None, str]) -> None:
    assert values.place(CONTEXT, PARAMETER, text) == found


def test_a_place_needs_a_share() -> None:
    with pytest.raises(click.BadParameter, match="SHARE"):
        values.place(CONTEXT, PARAMETER, "/pkgs")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (149_527_961, "142.6 MiB"), (1 << 40, "1.0 TiB"), (1 << 60, "1048576.0 TiB"), (1000 * 1024, "1.0 MiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (38, "38 s"), (119, "119 s"), (240, "4 min"), (3600, "1 h"), (12_000, "3 h 20 min"), (12 * 86400 + 4 * 3600, "12 d 4 h")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_since_names_the_day_only_if_it_was_another() -> None:
    now = datetime.now(UTC)
    assert output.since((now - timedelta(days=3)).isoformat()).startswith("since 20")
    assert "(3 d)" in output.since((now - timedelta(days=3, seconds=5)).isoformat())
    assert "-" not in output.since(now.isoformat())


def test_a_table_aligns_and_takes_control_characters_away() -> None:
    text = output.table(["NAME", ">SIZE"], [["a\x1b[31m", "1 B"], ["bbbbbbbbbb", "12 B"]])
    assert text == "NAME        SIZE\na\N{REPLACEMENT CHARACTER}[31m       1 B\nbbbbbbbbbb  12 B"


def test_line_feeds_stay_where_they_are_wanted() -> None:
    assert output.clean("a\nb\r", lines=True) == "a\nb\N{REPLACEMENT CHARACTER}"
    assert output.clean("a\nb") == "a\N{REPLACEMENT CHARACTER}b"
