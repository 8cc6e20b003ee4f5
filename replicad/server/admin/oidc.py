"""Logging in at a provider of OpenID Connect: the two addresses that a browser visits on its way there and back. Outside of the API, because they answer with redirects."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from replicad.errors import InputError, NotFoundError
from replicad.integrations.logins import CALLBACK, TICKET_S
from replicad.server.admin import cookies
from replicad.server.admin.sessions import bear
from replicad.server.admin.trace import trace

if TYPE_CHECKING:
    from replicad.integrations.oidc import Provider
    from replicad.server.admin.services import Services

LOGIN = "/oidc/login"
TICKET = "replicad_login"
HOME = "/ui/"
"""Where a person goes who has logged in."""
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def routes(services: Services) -> list[web.RouteDef]:
    """Both, also where no provider is configured: there they say so."""

    def provider() -> Provider:
        if services.provider is None:
            raise NotFoundError("no provider is configured", hint="it is told in the configuration: [oidc]", code="no-provider")
        return services.provider

    async def login(_request: web.Request) -> web.Response:
        begun = await provider().begin()
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={**_HEADERS, "Location": begun.url})
        _set_ticket(response, begun.ticket, is_https=provider().is_https)
        return response

    async def callback(request: web.Request) -> web.Response:
        trace(request).writes = True
        is_https = provider().is_https
        if len(request.query) != len(dict(request.query)):
            raise InputError("query string: a parameter is given twice")
        account = await provider().finish(request.query, request.cookies.get(TICKET, ""))
        bear(request, await services.sessions.begin(account), in_cookie=True)
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={**_HEADERS, "Location": HOME})
        _set_ticket(response, "", is_https=is_https)
        cookies.put(request, response, is_https=is_https)
        return response

    return [web.get(LOGIN, login, allow_head=False), web.get(CALLBACK, callback, allow_head=False)]


def _set_ticket(response: web.Response, ticket: str, *, is_https: bool) -> None:
    """Lax: the browser comes back from the provider's page. An empty one takes it away."""
    response.set_cookie(TICKET, ticket, max_age=TICKET_S if ticket else 0, path="/", secure=is_https, httponly=True, samesite="Lax")
