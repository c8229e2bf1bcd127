"""Who may talk to a page's server: nobody but the page, in the browser of whoever started it.

Another web page in the same browser can send requests to this computer.  It can neither read answers across origins,
nor name another ``Host`` than its own (which it may have resolve to us, DNS rebinding: so the names are listed), nor
know the token, which is in the part of the address that is never sent.  A person at another account of this computer
can connect, and lacks the token too.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from parties.pages.loopback import is_local

HEADERS = {
    # Nothing from elsewhere, no inline script or style, and nobody may frame the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def refusal(status: int, error: str, message: str) -> web.Response:
    """An answer that says what is wrong, in the form of all errors of this server."""
    return web.json_response({"step": "failed", "error": error, "message": message}, status=status)


def guard(token: str, names: frozenset[str], command: str) -> Middleware:
    """Middleware: requests for one of these hosts, from no other origin, and, for the API, with the token.

    ``command`` has printed where it is.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse | None = _refused(request, token, names, command)
        try:
            response = response or await handler(request)
        except web.HTTPException as error:
            response = refusal(error.status, error.reason.replace(" ", ""), error.reason)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    return middleware


def _refused(request: web.Request, token: str, names: frozenset[str], command: str) -> web.Response | None:
    if _name(f"//{request.headers.get(hdrs.HOST, '')}") not in names:
        return refusal(421, "MisdirectedRequest", "this server goes by another name: open the address that it printed")
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and not _ours(origin, request.headers[hdrs.HOST], names):
        return refusal(403, "Forbidden", "requests of other pages are refused")
    if request.path.startswith("/api/"):
        given = request.headers.get(hdrs.AUTHORIZATION, "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return refusal(401, "Unauthorized", f"open the address that {command} printed, all of it")
    return None


def _ours(origin: str, host: str, names: frozenset[str]) -> bool:
    """Whether a request's origin is the page's: what it asks, port and all, or a name that a proxy goes by.

    Another port of this computer is another page.
    """
    name = _name(origin)
    if name in names and not is_local(name):
        return True
    return bool(name) and urlsplit(origin).netloc.lower() == host.lower()


def _name(url: str) -> str:
    """The host in a URL, without its port; empty for what is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
