"""A run's pages served on this machine: the same page model as the export, drawn as Dash components.

Served is one run and nothing else: its pages, the pictures its results name, and what its model answers on the desk, all to
whoever holds the token (:mod:`experiments.dashboard.access`). The app answers only requests addressed to the host it was
started on, so that a page elsewhere cannot read it by giving its own name this machine's address.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import dash
import flask
from dash import ALL, Input, Output, State, ctx, dcc, html
from dash.exceptions import PreventUpdate

from experiments.dashboard.access import address, guard, new_token
from experiments.dashboard.api import add_api
from experiments.dashboard.components import table_body, table_state, to_dash
from experiments.dashboard.desk.opening import DeskOfRun
from experiments.dashboard.feature_details import ensure_details
from experiments.dashboard.markup import SLIDER, href, page_elements
from experiments.dashboard.page import FeatureTable, Page
from experiments.dashboard.run_files import files_of_run
from experiments.dashboard.run_view import RunView
from experiments.dashboard.site import Pages, missing_page
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LAST_PORT = 65_535
INDEX = """<!doctype html>
<html lang="en">
<head>{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>{%title%}</title><link rel="icon" href="data:,">{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""

ON_PAGE = """function(children, title, run) {
    document.title = title === run ? title : title + " \\u00b7 " + run;
    window.scrollTo(0, 0);
    if (window.mechinterpVisited) {
        requestAnimationFrame(function () {
            var heading = document.getElementById("title");
            if (heading) heading.focus({ preventScroll: true });
        });
    }
    window.mechinterpVisited = true;
    return window.dash_clientside.no_update;
}"""


ON_OPACITY = """function(opacity) {
    document.querySelectorAll(".js-plotly-plot").forEach(function (plot) {
        var overlaid = plot.layout.images && plot.layout.images.length && plot.data[0].type === "heatmap";
        if (overlaid) window.Plotly.restyle(plot, { opacity: Number(opacity) });
    });
    return window.dash_clientside.no_update;
}"""


def make_app(run_dir: Path, hosts: tuple[str, ...] | None = LOOPBACK, *, token: str) -> dash.Dash:
    """Return the app of a run, ready to be served.

    Parameters
    ----------
    run_dir
        The run.
    hosts
        Names of this machine that requests may be addressed to; ``None`` allows any.
    token
        What a request must hold, see :func:`experiments.dashboard.access.new_token`.

    Raises
    ------
    ConfigError
        If the folder holds no results.

    """
    pages = Pages(RunView.read(Path(run_dir)), live=True)
    app = dash.Dash(
        __name__,
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        title=pages.view.title,
        update_title="",
        suppress_callback_exceptions=True,
        index_string=INDEX,
    )
    app.layout = _layout(pages)
    guard(app.server, hosts, token)
    _add_files(app.server, pages.view)
    add_api(app.server, pages)
    _add_callbacks(app, pages)
    return app


def make_server(run_dir: Path, host: str = "127.0.0.1", port: int = 8050, *, token: str) -> BaseWSGIServer:
    """Return a server that listens already; ``serve_forever()`` answers, ``shutdown()`` ends it.

    Parameters
    ----------
    run_dir
        The run.
    host
        Where to listen; this machine only unless another address is given.
    port
        Where to listen; 0 takes any free port, which stands in the server's ``port``.
    token
        What a request must hold.

    Raises
    ------
    ConfigError
        If the address cannot be listened on, or the folder holds no results.

    """
    from werkzeug.serving import make_server as make

    _check_port(port)
    hosts = None if host in EVERYWHERE else (*LOOPBACK, host)
    app = make_app(run_dir, hosts, token=token)
    try:
        # Werkzeug ends the program where a port is taken; a socket of our own says so in our words.
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port"
        ) from error
    with listening:
        return make(host, listening.getsockname()[1], app.server, threaded=True, fd=listening.detach())


def serve(run_dir: Path, host: str = "127.0.0.1", port: int = 8050, *, progress: Progress = SILENT) -> None:
    """Serve a run until interrupted.

    Parameters
    ----------
    run_dir, host, port
        As of :func:`make_server`.
    progress
        Told the address, with the token that this time opens it, once it is listened on.

    """
    _check_port(port)
    token = new_token()
    view = RunView.read(Path(run_dir))
    ensure_details(view, DeskOfRun(view), progress=progress)
    server = make_server(run_dir, host, port, token=token)
    progress.note(f"{address(host, server.port, token)} – Ctrl-C ends it")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _check_port(port: int) -> None:
    if not 0 <= port <= LAST_PORT:
        raise ConfigError(f"--port is {port}: it must be 0 to {LAST_PORT}; 0 takes any free one")


def _layout(pages: Pages) -> Any:
    links = [html.Li(html.A(link.text, href=href(link.slug), id=f"nav-{link.slug}")) for link in pages.navigation]
    label: dict[str, Any] = {"aria-label": "Pages"}
    return html.Div(
        [
            dcc.Location(id="location", refresh=False),
            dcc.Store(id="page-title"),
            dcc.Store(id="run-title", data=pages.view.title),
            dcc.Store(id="focus-done"),
            dcc.Store(id="opacity-done"),
            html.Header(
                [
                    html.P(pages.view.title, className="site-title"),
                    html.Nav(html.Ul(links), **label),
                ],
                className="site",
            ),
            html.Main(id="main"),
        ]
    )


def _add_files(server: flask.Flask, view: RunView) -> None:
    """Serve the pictures that the results name, the pages of stages and the notes, and no other file."""

    @server.route("/files/<path:name>")
    def file(name: str) -> flask.Response:
        if name not in files_of_run(view.run_dir):
            flask.abort(404)
        return flask.send_file((view.run_dir / name).resolve(), max_age=0)

    @server.route("/images/<path:name>")
    def picture(name: str) -> flask.Response:
        if f"images/{name}" not in view.pictures:
            flask.abort(404)
        return flask.send_file((view.run_dir / "images" / name).resolve(), max_age=3600)


def page_of(pages: Pages, address: str | None) -> Page:
    """Return the page of a hash address; a friendly one where there is none."""
    slug = unquote((address or "").removeprefix("#").removeprefix("/")) or next(iter(pages))
    return pages[slug] if slug in pages else missing_page(slug)


def _add_callbacks(app: dash.Dash, pages: Pages) -> None:
    navigation = [link.slug for link in pages.navigation]

    @app.callback(
        Output("main", "children"),
        Output("page-title", "data"),
        *(Output(f"nav-{slug}", "className") for slug in navigation),
        Input("location", "hash"),
    )
    def show(address: str | None) -> tuple[Any, ...]:
        page = page_of(pages, address)
        section = page.slug.split("/")[0]
        current = ["current" if slug in {section, f"{section}s"} else "" for slug in navigation]
        return to_dash(page_elements(page)), page.title, *current

    clientside: Any = app.clientside_callback
    clientside(
        ON_PAGE,
        Output("focus-done", "data"),
        Input("main", "children"),
        State("page-title", "data"),
        State("run-title", "data"),
    )

    clientside(ON_OPACITY, Output("opacity-done", "data"), Input(SLIDER, "value"), prevent_initial_call=True)

    @app.callback(
        Output("table-body", "children"),
        Output("table-state", "data"),
        Input("table-search", "value"),
        Input({"part": "table-filter", "column": ALL, "choice": ALL}, "n_clicks"),
        Input({"part": "table-sort", "column": ALL}, "n_clicks"),
        Input({"part": "table-page", "step": ALL}, "n_clicks"),
        State("table-state", "data"),
        prevent_initial_call=True,
    )
    def select(search: str | None, _f: Any, _s: Any, _p: Any, state: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        clicked = ctx.triggered_id
        if isinstance(clicked, dict) and not ctx.triggered[0]["value"]:  # the buttons were drawn, none was used
            raise PreventUpdate
        table = next(block for block in pages["features"].blocks if isinstance(block, FeatureTable))
        new = table_state(table, state, clicked)
        return table_body(table, search or "", new), new
