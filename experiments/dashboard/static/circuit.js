// The graph of a circuit: draws columns of nodes, filters them, and walks along edges by mouse or keyboard.
(function () {
  "use strict";

  var data = window.mechinterpCircuit;
  var CARD = { width: 196, narrowest: 174, widest: 300, height: 62, row: 74, gap: 56, head: 34, edge: 14 };
  var COLOURS = { feature: "#0072B2", neuron: "#0072B2", channel: "#0072B2", head: "#CC79A7", layer: "#E69F00",
                  error: "#8a949e", metric: "#1c2733" };
  var frame = document.getElementById("circuit-frame");
  var SVG = frame.querySelector("svg").namespaceURI;   // so that no address stands here
  var details = document.getElementById("circuit-details");
  var count = document.getElementById("circuit-count");
  var controls = ["search", "layer", "word", "least"].reduce(function (all, name) {
    all[name] = document.getElementById("circuit-" + name);
    return all;
  }, {});
  var byId = {};
  data.nodes.forEach(function (node) { byId[node.id] = node; node.into = []; node.out = []; });
  data.edges.forEach(function (edge) { byId[edge.from].out.push(edge); byId[edge.to].into.push(edge); });
  var largestEffect = Math.max.apply(null, data.nodes.map(function (n) { return n.size || 0; }).concat([1e-12]));
  var chosen = null;      // id of the node whose ways are bright
  var drawn = {};         // id -> its element, of the nodes that are shown
  var lines = [];         // [edge, its element] of those shown
  var places = {};        // id -> {x, y}

  function svg(tag, attributes, children) {
    var node = document.createElementNS(SVG, tag);
    Object.keys(attributes || {}).forEach(function (name) {
      if (name === "text") node.textContent = attributes.text;
      else if (attributes[name] !== null) node.setAttribute(name, attributes[name]);
    });
    (children || []).forEach(function (child) { node.append(child); });
    return node;
  }

  function html(tag, attributes, children) {
    var node = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) {
      if (name === "text") node.textContent = attributes.text;
      else if (name.slice(0, 2) === "on") node.addEventListener(name.slice(2), attributes[name]);
      else node.setAttribute(name, attributes[name]);
    });
    (children || []).forEach(function (child) { node.append(child); });
    return node;
  }

  // One line, or two that break between words.
  function wrapped(text, most) {
    var end = text.length > most ? text.lastIndexOf(" ", most) : -1;
    return end > 0 ? [text.slice(0, end), text.slice(end + 1)] : [text];
  }

  function clipped(text, most) { return text.length > most ? text.slice(0, most - 1) + "…" : text; }

  // Which nodes match, which stand beside them, and which edges run between.
  function selected() {
    var words = controls.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var layer = controls.layer.value === "" ? null : Number(controls.layer.value);
    var word = controls.word && controls.word.value !== "" ? controls.word.options[controls.word.selectedIndex].text : null;
    var least = Number(controls.least.value);
    var edges = data.edges.filter(function (e) { return e.share >= least && (word === null || e.word === word); });
    var touched = new Set();
    edges.forEach(function (e) { touched.add(e.from); touched.add(e.to); });
    var narrowed = words.length > 0 || layer !== null;
    var matched = new Set(data.nodes.filter(function (n) {
      var text = [n.name, n.label, n.site, n.kind, n.follows].join("\n").toLowerCase();
      return words.every(function (w) { return text.includes(w); }) && (layer === null || n.column === layer) &&
        (touched.has(n.id) || n.kind === "metric" || (least === 0 && word === null));
    }).map(function (n) { return n.id; }));
    edges = edges.filter(function (e) { return matched.has(e.from) || matched.has(e.to); });
    var beside = new Set();
    if (narrowed) edges.forEach(function (e) {
      [e.from, e.to].forEach(function (id) { if (!matched.has(id)) beside.add(id); });
    });
    return { matched: matched, beside: beside, edges: edges };
  }

  // A column a layer; in each the order that keeps edges short.
  function place(shown) {
    var visible = data.nodes.filter(function (n) { return shown.matched.has(n.id) || shown.beside.has(n.id); });
    var columns = data.columns.map(function (_, c) { return visible.filter(function (n) { return n.column === c; }); });
    var used = columns.map(function (_, c) { return c; }).filter(function (c) { return columns[c].length; });
    var height = {}, near = {};
    visible.forEach(function (n) { near[n.id] = []; });
    shown.edges.forEach(function (e) { near[e.from].push(e.to); near[e.to].push(e.from); });
    function spread(nodes) { nodes.forEach(function (n, k) { height[n.id] = (k + 1) / (nodes.length + 1); }); }
    columns.forEach(spread);
    for (var round = 0; round < 8; round++) columns.forEach(function (nodes) {
      var centre = {};
      nodes.forEach(function (n) {
        var others = near[n.id];
        centre[n.id] = others.length ? others.reduce(function (s, id) { return s + height[id]; }, 0) / others.length : height[n.id];
      });
      nodes.sort(function (a, b) { return centre[a.id] - centre[b.id]; });
      spread(nodes);
    });
    var most = Math.max.apply(null, columns.map(function (c) { return c.length; }).concat([1]));
    // names are whole where there is room; five layers fit a narrow screen
    var share = (frame.clientWidth - 2 * CARD.edge - (used.length - 1) * CARD.gap) / Math.max(used.length, 1);
    CARD.width = Math.round(Math.min(CARD.widest, Math.max(CARD.narrowest, share)));
    var room = frame.clientWidth - 2 * CARD.edge - used.length * CARD.width;
    var gap = used.length > 1 ? Math.max(CARD.gap, Math.min(240, room / (used.length - 1))) : 0;
    places = {};
    used.forEach(function (c, k) {
      // in the middle, unless that would be out of sight at first
      var top = CARD.head + (CARD.head + most * CARD.row > 640 ? 0 : (most - columns[c].length) * CARD.row / 2);
      columns[c].forEach(function (n, r) {
        places[n.id] = { x: CARD.edge + k * (CARD.width + gap), y: top + r * CARD.row, k: k, r: r };
      });
    });
    return { columns: columns, used: used, gap: gap, width: 2 * CARD.edge + used.length * CARD.width + Math.max(0, used.length - 1) * gap,
             height: CARD.head + most * CARD.row + CARD.edge };
  }

  function card(node, faded) {
    var at = places[node.id], picture = node.pictures[0], left = picture ? CARD.height + 2 : 12;
    // effects of either sign cancel in a mean: then their size is all there is to say
    var sided = node.effect !== null && Math.abs(node.effect) >= 0.2 * node.size;
    var what = node.follows ? node.what : node.kind;   // several features may follow one quantity
    var note = node.effect === null ? what : what + " · " +
      (sided ? (node.effect > 0 ? "▲ " : "▼ ") + Number(node.effect.toPrecision(3)) : "± " + Number(node.size.toPrecision(3)));
    var most = Math.floor((CARD.width - left - 10) / 6.9);
    var children = [
      svg("title", { text: node.name }),
      svg("rect", { "class": "ring", x: -3, y: -3, width: CARD.width + 6, height: CARD.height + 6, rx: 8 }),
      svg("rect", { "class": "card", width: CARD.width, height: CARD.height, rx: 6 }),
      svg("rect", { width: 4, height: CARD.height, rx: 2, fill: COLOURS[node.kind] || "#009E73" })
    ];
    if (picture) {
      var side = CARD.height - 8;
      children.push(svg("image", { href: data.pictures[picture[0]], x: 8, y: 4, width: side, height: side,
                                   preserveAspectRatio: "none" }));
      if (picture[2]) children.push(svg("rect", { "class": "box", x: 8 + picture[2][1] * side, y: 4 + picture[2][0] * side,
        width: Math.max(3, (picture[2][3] - picture[2][1]) * side), height: Math.max(3, (picture[2][2] - picture[2][0]) * side) }));
    }
    var names = wrapped(node.label, most), first = names.length > 1 ? 16 : 22;
    names.forEach(function (line, k) {
      children.push(svg("text", { "class": "name", x: left + 4, y: first + 14 * k, text: clipped(line, most) }));
    });
    children.push(svg("text", { "class": "note", x: left + 4, y: first + 14 * names.length + 1, text: clipped(note, most + 2) }));
    if (node.size) children.push(svg("rect", { x: left + 4, y: 51, height: 4, rx: 2,
      width: Math.max(1, node.size / largestEffect * (CARD.width - left - 14)), fill: !sided ? "#8a949e" : node.effect > 0 ? "#0072B2" : "#D55E00" }));
    var group = svg("g", { "class": "node" + (faded ? " context" : "") + (node.repair ? " repair" : ""), tabindex: -1, role: "button",
      transform: "translate(" + at.x + "," + at.y + ")", "data-id": node.id,
      "aria-label": node.name + ", " + node.kind + (node.follows ? ", follows " + node.follows : "") +
        (node.says ? ", effect " + node.says : "") }, children);
    group.addEventListener("click", function () { choose(node.id); group.focus({ preventScroll: true }); });
    group.addEventListener("focus", function () { choose(node.id); });
    return group;
  }

  function curve(edge) {
    var a = places[edge.from], b = places[edge.to];
    var x1 = a.x + CARD.width, y1 = a.y + CARD.height / 2, x2 = b.x, y2 = b.y + CARD.height / 2, bend = Math.max(40, (x2 - x1) / 2);
    var path = svg("path", { "class": "edge " + (edge.sign > 0 ? "up" : edge.sign < 0 ? "down" : "none"),
      d: "M" + x1 + "," + y1 + "C" + (x1 + bend) + "," + y1 + " " + (x2 - bend) + "," + y2 + " " + x2 + "," + y2,
      "stroke-width": (1 + 5 * edge.share).toFixed(2) },
      [svg("title", { text: byId[edge.from].name + " → " + byId[edge.to].name + "\n" + edge.says + (edge.word ? "\n" + edge.word : "") })]);
    return path;
  }

  function draw() {
    var shown = selected(), plan = place(shown);
    var picture = svg("svg", { width: plan.width, height: plan.height, role: "group", "aria-label": "Nodes in columns, one a layer" });
    plan.used.forEach(function (c, k) {
      var words = data.columns[c];
      picture.append(svg("text", { "class": "head", x: CARD.edge + k * (CARD.width + plan.gap), y: 20, text: clipped(words, Math.floor((CARD.width + Math.min(plan.gap, CARD.gap)) / 6.6)) },
        [svg("title", { text: words })]));
    });
    drawn = {};
    lines = shown.edges.map(function (edge) { return [edge, curve(edge)]; });
    lines.slice().reverse().forEach(function (line) { picture.append(line[1]); });
    // reading order: column after column, from above
    plan.columns.forEach(function (nodes) {
      nodes.forEach(function (node) {
        drawn[node.id] = card(node, shown.beside.has(node.id));
        picture.append(drawn[node.id]);
      });
    });
    frame.replaceChildren(picture);
    count.textContent = shown.matched.size + " of " + data.nodes.length + " nodes and " + shown.edges.length + " of " +
      data.edges.length + " edges shown" + (shown.beside.size ? ", with " + shown.beside.size + " neighbours, paler" : "");
    if (chosen && !drawn[chosen]) chosen = null;
    light();
  }

  function light() {
    var first = Object.keys(drawn)[0];
    Object.keys(drawn).forEach(function (id) {
      drawn[id].classList.toggle("chosen", id === chosen);
      drawn[id].setAttribute("tabindex", id === (chosen || first) ? 0 : -1);   // one stop for Tab; arrows do the rest
    });
    lines.forEach(function (line) {
      var own = line[0].from === chosen || line[0].to === chosen;
      line[1].classList.toggle("bright", chosen !== null && own);
      line[1].classList.toggle("dim", chosen !== null && !own);
    });
    describe();
  }

  function choose(id) { if (id !== chosen) { chosen = id; light(); } }

  function ways(title, edges, end) {
    if (!edges.length) return [];
    var items = edges.slice(0, 12).map(function (edge) {
      var other = byId[edge[end]];
      return html("li", {}, [html("button", { type: "button", text: other.name, onclick: function () { go(other.id); } }),
        " " + (edge.sign > 0 ? "▲ up" : edge.sign < 0 ? "▼ down" : "no sign") + ", " + edge.says + (edge.word ? " – " + edge.word : "")]);
    });
    if (edges.length > 12) items.push(html("li", { text: (edges.length - 12) + " smaller ones are in the table" }));
    return [html("div", {}, [html("h4", { text: title }), html("ul", { "class": "ways-list" }, items)])];
  }

  function describe() {
    if (!chosen) { details.replaceChildren(); return; }
    var node = byId[chosen];
    var facts = [node.kind + " at " + node.site];
    if (node.follows) facts.push("follows " + node.follows);
    if (node.says) facts.push("its own effect on " + data.metric + ": " + node.says);
    if (node.repair) facts.push("silent until another node is changed (self-repair)");
    var pictures = node.pictures.map(function (shown) {
      var children = [html("img", { src: data.pictures[shown[0]], alt: shown[1] })];
      if (shown[2]) {
        var place = html("span", { "class": "place" }), box = shown[2];
        place.style.top = 100 * box[0] + "%"; place.style.left = 100 * box[1] + "%";
        place.style.height = 100 * (box[2] - box[0]) + "%"; place.style.width = 100 * (box[3] - box[1]) + "%";
        children.push(place);
      }
      return html("li", {}, [html("div", { "class": "picture" }, children), html("span", { text: shown[1] })]);
    });
    details.replaceChildren(
      html("h3", { text: node.name }), html("p", { text: facts.join("; ") + "." }),
      html("ul", { "class": "pictures" }, pictures),
      html("div", { "class": "ways" }, ways("Driven by", node.into, "from").concat(ways("Drives", node.out, "to"))));
    if (!pictures.length) details.querySelector(".pictures").remove();
  }

  // Show a node even where a filter hides it.
  function go(id) {
    if (!drawn[id]) {
      controls.search.value = ""; controls.layer.value = ""; controls.least.value = 0;
      if (controls.word) controls.word.value = "";
      draw();
    }
    drawn[id].focus();
    drawn[id].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function along(edges, end) {
    var found = edges.filter(function (e) { return drawn[e[end]]; })[0];   // edges stand by falling size
    return found ? found[end] : null;
  }

  function neighbour(id, step) {
    var at = places[id];
    return Object.keys(places).filter(function (other) { return places[other].k === at.k && places[other].r === at.r + step; })[0] || null;
  }

  frame.addEventListener("keydown", function (event) {
    var group = event.target.closest ? event.target.closest(".node") : null;
    if (!group) return;
    var id = group.getAttribute("data-id"), node = byId[id];
    var to = { ArrowRight: function () { return along(node.out, "to"); }, ArrowLeft: function () { return along(node.into, "from"); },
               ArrowDown: function () { return neighbour(id, 1); }, ArrowUp: function () { return neighbour(id, -1); } }[event.key];
    if (event.key === "Escape") { chosen = null; light(); event.preventDefault(); return; }
    if (event.key === "Enter" || event.key === " ") { choose(id); details.scrollIntoView({ block: "nearest" }); event.preventDefault(); return; }
    if (!to) return;
    event.preventDefault();
    var next = to();
    if (next) { drawn[next].focus(); drawn[next].scrollIntoView({ block: "nearest", inline: "nearest" }); }
  });

  ["search", "least"].forEach(function (name) { controls[name].addEventListener("input", draw); });
  ["layer", "word"].forEach(function (name) { if (controls[name]) controls[name].addEventListener("change", draw); });
  window.addEventListener("resize", draw);
  draw();
}());
