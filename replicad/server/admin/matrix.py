"""The picture: entries by nodes with percent; and what this node is fetching."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replicad.model.entries import Listed
from replicad.model.ids import check_share_name
from replicad.model.members import Member
from replicad.server.admin import bodies, nouns, queries, views
from replicad.server.admin.entries import cursor, place
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services

ROWS_PER_TURN = 100
"""Rows computed before the event loop gets its turn: 100 rows of 32 nodes take about 5 ms."""
PAGES_MAX = 20
"""Pages of complete rows that one request looks through for incomplete ones."""


async def matrix(call: Call[queries.MatrixQuery]) -> nouns.Matrix:
    """GET /matrix. With ``incomplete``, or for a caller who may not see everything, a page may hold few rows, or none, and still have a ``next``."""
    asked, services = call.asked, call.services
    if asked.share is not None:
        views.find_share(services, check_share_name(asked.share))
    columns = sorted(views.members_now(services).values(), key=lambda member: (member.id != services.node, member.name, member.id))
    linked = views.linked_members(services) | {services.node}
    nodes = [nouns.NodeColumn(str(member.id), member.name, member.site, member.id in linked) for member in columns]
    rows: list[nouns.Row] = []
    after, following = place(asked.after), asked.after
    for _ in range(PAGES_MAX if asked.incomplete else 1):
        page = await services.catalog.entries(asked.share, after=after, limit=asked.limit, all_stages=True)
        seen = [listed for listed in page if call.caller.reaches(listed.share, listed.path)]
        rows += await _rows(services, seen, columns, incomplete=asked.incomplete)
        following = cursor(page, asked.limit)
        if following is None or len(rows) >= asked.limit:
            break
        after = place(following)
    return nouns.Matrix(nodes, rows, following)


async def _rows(services: Services, page: Sequence[Listed], columns: Sequence[Member], *, incomplete: bool) -> list[nouns.Row]:
    rows = []
    for index, listed in enumerate(page):
        row = _row(services, listed, columns)
        if not incomplete or row.copies < row.copies_wanted:
            rows.append(row)
        if index % ROWS_PER_TURN == ROWS_PER_TURN - 1:
            await asyncio.sleep(0)
    return rows


def _row(services: Services, listed: Listed, columns: Sequence[Member]) -> nouns.Row:
    wanted = [member.carries(listed.share, listed.stage) and not listed.taken_down for member in columns]
    percents = [views.percent(services, member.id, listed) if wants else None for member, wants in zip(columns, wanted, strict=True)]
    return nouns.Row(
        share=listed.share,
        path=listed.path,
        stage=listed.stage,
        size=listed.size,
        sha256=str(listed.content),
        percent=percents,
        wanted=wanted,
        copies=percents.count(100),
        copies_wanted=wanted.count(True),
    )


async def transfers(call: Call[bodies.Nothing]) -> nouns.Transfers:
    """GET /transfers: of what the caller may see."""
    services = call.services
    members = views.members_now(services)
    found = []
    for transfer in services.fetch.transfers():
        share, path = await services.catalog.name_of(transfer.content) or ("", "")
        if not call.caller.reaches(share, path):
            continue
        sources = [views.label(members, node) for node in transfer.sources]
        found.append(nouns.Transfer(str(transfer.content), share, path, transfer.size, transfer.done_bytes, sources, transfer.rate))
    return nouns.Transfers(found)
