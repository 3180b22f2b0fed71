// The shell of an exported run: routes by hash, loads each page as a script, draws its figures after its text.
(function () {
  "use strict";

  var element = window.mechinterpWidgets.element;
  var site = null;
  var known = new Set();
  var pages = new Map();      // the last few pages, so that going back is instant
  var waiting = new Map();
  var tableStates = new Map();
  var visit = 0;              // a figure still to be drawn for an earlier visit is dropped
  var plotly = null;
  var KEPT = 12;
  var CONFIG = {
    displaylogo: false, responsive: true, showTips: false,
    displayModeBar: false, scrollZoom: false, doubleClick: "reset"
  };

  window.mechinterpPage = function (page) {
    pages.set(page.slug, page);
    if (pages.size > KEPT) pages.delete(pages.keys().next().value);
    var then = waiting.get(page.slug);
    waiting.delete(page.slug);
    if (then) then(page);
  };

  // The manifest stands in its own script, loaded before this one.
  function start(manifest) {
    site = manifest;
    known = new Set(site.slugs);
    window.addEventListener("hashchange", route);
    window.matchMedia("print").addEventListener("change", resizeAll);   // figures take the paper's width
    window.addEventListener("beforeprint", resizeAll);
    window.addEventListener("afterprint", resizeAll);
    route();
  }

  function script(source, done, failed) {
    var node = element("script", { src: source, onload: function () { node.remove(); done(); },
                                   onerror: function () { node.remove(); failed(); } });
    document.head.append(node);
  }

  function route() {
    var hash = window.location.hash;
    if (hash === "#title" || hash === "#main") {   // the skip link
      var title = document.getElementById("title");
      if (title) title.focus();
      return;
    }
    var slug = hash.replace(/^#\/?/, "");
    try { slug = decodeURIComponent(slug); } catch (error) { /* not an address of ours; shown as it is */ }
    slug = slug || site.start;
    waiting.clear();   // a page that is still on its way is kept, not shown
    if (!known.has(slug)) return show(missing(slug));
    if (pages.has(slug)) return show(pages.get(slug));
    waiting.set(slug, show);
    script("pages/" + slug + ".js", function () {}, function () { show(missing(slug)); });
  }

  function missing(slug) {
    var page = Object.assign({}, site.missing);
    page.slug = slug;
    page.wanted = slug.length > 80 ? slug.slice(0, 80) + "…" : slug;
    return page;
  }

  function show(page) {
    var main = document.getElementById("main");
    var here = ++visit;
    if (plotly) main.querySelectorAll(".js-plotly-plot").forEach(function (plot) { plotly.purge(plot); });
    main.innerHTML = page.html;   // escaped when it was written
    if (page.wanted !== undefined) {
      var paragraph = main.querySelector(".text p");
      paragraph.textContent = paragraph.textContent.replace("“…”", "“" + page.wanted + "”");
    }
    document.title = page.title === site.title ? page.title : page.title + " · " + site.title;
    var section = page.slug.split("/")[0];
    document.querySelectorAll("header nav a").forEach(function (link) {
      var own = link.dataset.slug;
      if (own === page.slug) link.setAttribute("aria-current", "page");
      else if (own === section || own === section + "s") link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
    main.querySelectorAll("[data-table]").forEach(function (place) {
      featureTable(place, page.tables[place.dataset.table], page.slug);
    });
    var slider = document.getElementById("overlay-opacity");
    if (slider) slider.addEventListener("input", function () { setOpacity(Number(slider.value)); });
    delete document.body.dataset.drawn;
    window.scrollTo(0, 0);
    if (here > 1) document.getElementById("title").focus({ preventScroll: true });
    var places = Array.from(main.querySelectorAll("[data-figure]"));
    // Two frames: the text is on the screen before the browser is given five megabytes to parse.
    requestAnimationFrame(function () { requestAnimationFrame(function () { drawAll(page, places, here); }); });
  }

  function drawAll(page, places, here) {
    if (!places.length) { document.body.dataset.drawn = page.slug; return; }
    if (plotly) return drawNext(page, places, 0, here);
    script("plotly.min.js", function () {
      plotly = window.Plotly;
      drawNext(page, places, 0, here);
    }, function () {
      places.forEach(function (place) { place.textContent = "plotly.min.js is missing beside index.html: export the run again."; });
    });
  }

  function drawNext(page, places, at, here) {
    if (here !== visit) return;
    if (at === places.length) { document.body.dataset.drawn = page.slug; return; }
    var place = places[at];
    var folded = place.closest("details:not([open])");
    if (folded) {   // drawn when it is unfolded: a figure that is hidden has no size
      folded.addEventListener("toggle", function () { drawOne(page, place, here); }, { once: true });
      return drawNext(page, places, at + 1, here);
    }
    drawOne(page, place, here).then(function () {
      // Two figures a frame keep scrolling smooth while a page fills.
      if (at % 2) requestAnimationFrame(function () { drawNext(page, places, at + 1, here); });
      else drawNext(page, places, at + 1, here);
    });
  }

  function drawOne(page, place, here) {
    if (here !== visit) return Promise.resolve();
    var figure = page.figures[place.dataset.figure];
    var layout = Object.assign({}, figure.layout, { template: site.theme });
    place.textContent = "";
    return plotly.newPlot(place, figure.data, layout, CONFIG).then(function () {
      var slider = document.getElementById("overlay-opacity");
      if (slider && slider.value !== slider.defaultValue) setOpacity(Number(slider.value));
    });
  }

  function setOpacity(opacity) {
    document.querySelectorAll(".js-plotly-plot").forEach(function (plot) {
      var overlaid = plot.layout.images && plot.layout.images.length && plot.data[0].type === "heatmap";
      if (overlaid) plotly.restyle(plot, { opacity: opacity });
    });
  }

  function resizeAll() {
    if (plotly) document.querySelectorAll(".js-plotly-plot").forEach(function (plot) { plotly.Plots.resize(plot); });
  }

  function featureTable(place, table, slug) {
    var state = tableStates.get(slug) || { search: "", filters: {}, sort: table.sort, descending: table.descending, page: 0 };
    tableStates.set(slug, state);
    var lines = table.rows.map(function (row) { return row[1].join("\n").toLowerCase(); });
    var count = element("p", { "class": "count", role: "status" });
    var frame = element("div", { "class": "table-frame", role: "region", tabindex: "0", "aria-label": table.caption });
    var pager = element("div", { "class": "pager" });

    var search = element("input", { type: "search", id: "search", value: state.search, autocomplete: "off",
      oninput: function () { state.search = search.value; state.page = 0; update(); } });
    var controls = element("div", { "class": "table-controls" }, [
      element("div", {}, [element("label", { "for": "search", text: "Search" }), search])
    ]);
    table.filters.forEach(function (filter) {
      var id = "filter-" + filter.column;
      var select = element("select", { id: id, onchange: function () {
        state.filters[filter.column] = select.value; state.page = 0; update();
      } }, [element("option", { value: "", text: "all" })].concat(filter.choices.map(function (choice) {
        return element("option", { value: choice, text: choice });
      })));
      select.value = state.filters[filter.column] || "";
      controls.append(element("div", {}, [element("label", { "for": id, text: table.columns[filter.column].label }), select]));
    });

    function selected() {
      var words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
      var found = [];
      table.rows.forEach(function (row, i) {
        for (var column in state.filters) {
          if (state.filters[column] && row[1][column] !== state.filters[column]) return;
        }
        if (words.every(function (word) { return lines[i].includes(word); })) found.push(row);
      });
      var sign = state.descending ? -1 : 1;
      function rank(key) { return typeof key === "string" ? 1 : 0; }
      return found.sort(function (a, b) {
        var x = a[2][state.sort], y = b[2][state.sort];
        if (x === null || y === null) return (x === null) - (y === null);
        if (rank(x) !== rank(y)) return sign * (rank(x) - rank(y));
        return x < y ? -sign : x > y ? sign : 0;
      });
    }

    function heading(column, index) {
      var current = state.sort === index;
      var button = element("button", { type: "button", title: column.explanation || null, text: column.label, onclick: function () {
        state.descending = current ? !state.descending : column.numeric;
        state.sort = index; state.page = 0; update(index);
      } });
      if (current) button.append(element("span", { "aria-hidden": "true", text: state.descending ? " ▾" : " ▴" }));
      return element("th", { scope: "col", "class": column.numeric ? "number" : null,
        "aria-sort": current ? (state.descending ? "descending" : "ascending") : null }, [button]);
    }

    function update(focused) {
      var rows = selected();
      var last = Math.max(0, Math.ceil(rows.length / table.pageRows) - 1);
      state.page = Math.min(state.page, last);
      var first = state.page * table.pageRows;
      var body = rows.slice(first, first + table.pageRows).map(function (row) {
        return element("tr", {}, row[1].map(function (text, i) {
          var css = table.columns[i].numeric ? "number" : null;
          if (i) return element("td", { "class": css, text: text });
          return element("th", { scope: "row", "class": css }, [row[0] ? element("a", { href: "#/" + row[0], text: text }) : text]);
        }));
      });
      var shown = rows.length ? " · showing " + (first + 1) + " to " + Math.min(first + table.pageRows, rows.length) : "";
      count.textContent = rows.length.toLocaleString("en") + " of " + table.rows.length.toLocaleString("en") + shown;
      frame.replaceChildren(element("table", { "class": "table" }, [
        element("caption", { text: table.caption }),
        element("thead", {}, [element("tr", {}, table.columns.map(heading))]),
        element("tbody", {}, body)
      ]));
      pager.replaceChildren();
      if (last) [["← Previous", -1, state.page === 0], ["Next →", 1, state.page === last]].forEach(function (way) {
        var button = element("button", { type: "button", text: way[0], onclick: function () { state.page += way[1]; update(); } });
        button.disabled = way[2];
        pager.append(button);
      });
      if (focused !== undefined) frame.querySelectorAll("thead button")[focused].focus();
    }

    place.replaceChildren(controls, count, frame, pager);
    update();
  }

  start(window.mechinterpManifest);
}());
