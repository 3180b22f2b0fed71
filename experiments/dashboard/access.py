"""Who is answered by a served run: whoever holds its token, from this machine, and nobody else.

A token is made anew each time a run is served and stands in the address that is printed. The first request with it is given
a cookie that the browser keeps to itself and sends to this server only; without one of the two nothing is served, no page,
picture or script. What changes anything must besides carry a header that a page elsewhere cannot set.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlencode

import flask

TOKEN = "token"  # noqa: S105  the name of the parameter
OWN_HEADER = "X-Mechinterp"
REFUSED = "These pages need their token: open the address that `mechinterp dashboard` printed, with everything after the “?”.\n"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def address(host: str, port: int, token: str) -> str:
    """Return the address at which a run opens.

    Examples
    --------
    >>> address("127.0.0.1", 8050, "abc")
    'http://127.0.0.1:8050/?token=abc'

    """
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}/?{urlencode({TOKEN: token})}"


def guard(server: flask.Flask, hosts: tuple[str, ...] | None, token: str) -> None:
    """Refuse requests without the token or addressed to other hosts, and tell browsers to fetch nothing from elsewhere.

    Parameters
    ----------
    server
        The server.
    hosts
        Names of this machine that requests may be addressed to; ``None`` allows any.
    token
        What a request must hold.

    """
    # browsers send a cookie to every port of a host: two served runs must not take each other's
    cookie = f"mechinterp_{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    def refuse_strangers() -> flask.Response | None:
        request = flask.request
        name = request.host.rsplit(":", 1)[0].strip("[]")
        if hosts is not None and name not in hosts:
            flask.abort(403)
        shown = request.args.get(TOKEN)
        if shown is not None and _same(shown, token):
            # the token leaves the address bar, and with it the browser's history
            answer = flask.make_response(flask.redirect(request.path))
            answer.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/")
            return answer
        if not _same(request.cookies.get(cookie, ""), token):
            return flask.Response(REFUSED, status=403, mimetype="text/plain")
        # Dash's own requests change nothing; ours do
        if request.method in CHANGING and request.path.startswith("/api/") and OWN_HEADER not in request.headers:
            flask.abort(403)
        return None

    def add_headers(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    server.before_request(refuse_strangers)
    server.after_request(add_headers)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())
