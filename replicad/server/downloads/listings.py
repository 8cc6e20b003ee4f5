"""What lies in a directory of a share: a page for people (HTML) or for programs (JSON), of what this node shows, one level at a time.

Pure, except for asking the catalog. A page has at most ``CHILDREN_MAX`` names; the next one begins where it ended. What lies deep below a directory is skipped, not read.
"""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, quote

from replicad.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from replicad.model.entries import Listed
    from replicad.server.downloads.conditions import Fields
    from replicad.server.downloads.targets import DirectoryTarget

CHILDREN_MAX = 1000
ROWS = 500
"""Names read at once: some milliseconds in a thread."""
READS_MAX = 40
"""So many times for one page: a directory of a thousand directories costs several pages, never a minute."""
KEY_CHARACTERS_MAX = 1024
PAST_EVERYTHING = "/\U0010ffff"
"""After a directory's key: greater than every key below it."""
JSON, HTML = "application/json", "text/html; charset=utf-8"
EXTRA = b"Cache-Control: no-cache\r\nVary: Accept\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.2em}a{color:#0a58ca;text-decoration:none}a:hover{text-decoration:underline}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25em .75em .25em 0;border-bottom:1px solid #ddd}td+td,th+th{text-align:right;white-space:nowrap;color:#555}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#79b0ff}th,td{border-color:#333}td+td,th+th{color:#aaa}}"
)

Read = Callable[[str, str], Awaitable[Sequence["Listed"]]]
"""(prefix, after) to at most ``ROWS`` entries of the share below that prefix in order of key; empty at the end."""


class Listing(NamedTuple):
    """``path`` of the directory as its files' authors wrote it, empty for the share itself. ``after``: the key with which the next page begins, "" if this is the last."""

    share: str
    path: str
    directories: tuple[str, ...]
    files: tuple[Listed, ...]
    after: str


async def read(target: DirectoryTarget, entries: Read, *, after: str, shows: Callable[[Listed], bool]) -> Listing:
    """The page of that directory after that key. ``shows``: whether a client could download it now. NotFoundError when nothing lies there."""
    depth = target.key.count("/") + 1 if target.key else 0
    directories: dict[str, str] = {}
    files: list[Listed] = []
    path = ""
    for _ in range(READS_MAX):
        rows = await entries(target.key, after)
        if not rows:
            after = ""
            break
        for listed in (row for row in rows if row.key != target.key and shows(row)):
            segments = listed.path.split("/")
            path = path or "/".join(segments[:depth])
            if len(segments) > depth + 1:
                directories.setdefault(listed.key.split("/")[depth], segments[depth])
            else:
                files.append(listed)
        after = _beyond(rows[-1].key, depth)
        if len(directories) + len(files) >= CHILDREN_MAX:
            break
    if not directories and not files:
        raise NotFoundError("nothing lies there")
    return Listing(target.share, path, tuple(directories[key] for key in sorted(directories)), tuple(files), after)


def _beyond(key: str, depth: int) -> str:
    """The end of a page: the last file, or everything below the directory that the page ended in."""
    segments = key.split("/")
    return key if len(segments) == depth + 1 else "/".join(segments[: depth + 1]) + PAST_EVERYTHING


def after_of(target: str) -> str:
    """The ``after`` of a request's query, "" if it has none. InputError."""
    try:
        after = dict(parse_qsl(target.partition("?")[2], max_num_fields=4, errors="strict")).get("after", "")
    except ValueError:
        raise InputError("query: cannot be read") from None
    if len(after) > KEY_CHARACTERS_MAX:
        raise InputError(f"after: at most {KEY_CHARACTERS_MAX} characters")
    return after


def wants_json(fields: Fields) -> bool:
    """RFC 9110 section 12.5.1, as far as two types need it: whether JSON is preferred to HTML, which is what those get who do not care."""
    quality = {JSON: 0.0, "text/html": 0.0}
    for part in ",".join(fields.getall("Accept", ())).split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        if media_type in quality:
            quality[media_type] = max(quality[media_type], _quality(parameters))
    return quality[JSON] > quality["text/html"]


def _quality(parameters: Sequence[str]) -> float:
    said = next((word[2:] for word in parameters if word.startswith("q=")), "1")
    try:
        return float(said)
    except ValueError:
        return 0.0


def as_json(listing: Listing) -> bytes:
    """One object; names are relative to the directory."""
    return (
        json.dumps(
            {
                "share": listing.share,
                "path": listing.path,
                "directories": list(listing.directories),
                "files": [
                    {"name": _name(one), "size": one.size, "sha256": str(one.content), "modified": _date(one.modified), "available": one.available}
                    for one in listing.files
                ],
                "after": listing.after or None,
            },
            ensure_ascii=False,
        ).encode("utf-8", "replace")
        + b"\n"
    )


def as_html(listing: Listing) -> bytes:
    """A table; every link is relative, so that it also works behind a proxy that serves the door below a path."""
    title = html.escape(f"{listing.share}/{listing.path}".rstrip("/") + "/")
    rows = ['<tr><td><a href="../">..</a></td><td></td><td></td></tr>'] if listing.path else []
    rows += [f'<tr><td><a href="{_link(name)}/">{html.escape(name)}/</a></td><td></td><td></td></tr>' for name in listing.directories]
    for one in listing.files:
        here = "" if one.available else " (arriving)"
        cell = f'<a href="{_link(_name(one))}">{html.escape(_name(one))}</a>{here}'
        rows.append(f"<tr><td>{cell}</td><td>{_size(one.size)}</td><td>{_date(one.modified)[:16].replace('T', ' ')}</td></tr>")
    more = f'<p><a href="?after={quote(listing.after, safe="")}">more</a></p>' if listing.after else ""
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head>'
    table = f"<table><tr><th>Name</th><th>Size</th><th>Modified (UTC)</th></tr>{''.join(rows)}</table>"
    return f"{head}<body><h1>{title}</h1>{table}{more}</body></html>\n".encode("utf-8", "replace")


def _name(listed: Listed) -> str:
    return listed.path.rpartition("/")[2]


def _link(name: str) -> str:
    """``./`` in front: a name with a colon is no scheme."""
    return f"./{quote(name)}"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC).isoformat().replace("+00:00", "Z")


def _size(size: int) -> str:
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if not unit else f"{value:.1f} {_UNITS[unit]}"
