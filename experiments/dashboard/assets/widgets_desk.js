// The intervention desk: one row for each feature or channel; served, a move runs the model; exported, it is looked up.
(function () {
  "use strict";

  var widgets = window.mechinterpWidgets;
  var element = widgets.element;
  var SCALE_END = 4;

  function short(value) {
    var size = Math.abs(value);
    var text = size !== 0 && (size >= 1e5 || size < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
    return text.replace("-", "−");
  }

  function signed(value) { return (value > 0 ? "+" : "") + short(value); }

  function desk(place, config) {
    var rows = [];
    var status = element("p", { role: "status", "class": "desk-words", text: "Nothing is moved." });
    var cautions = element("ul", { "class": "desk-cautions" });
    var body = element("tbody");
    var list = element("div", { "class": "desk-rows" });
    var latest = 0, running = false, again = false;

    function isMoved(row) { return !(row.how === "scale" && row.value === 1); }

    // ---- what a move gives

    function answer() {
      var moved = rows.filter(isMoved);
      if (!moved.length) return Promise.resolve(null);
      if (!config.live) {
        var row = moved[0];
        return Promise.resolve(Object.assign({ cautions: [] }, row.stored[row.how].outcomes[row.at]));
      }
      return widgets.post("api/desk", {
        image: config.image,
        moves: moved.map(function (row) { return { unit: row.unit.unit, how: row.how, value: row.value }; })
      });
    }

    function ask() {
      if (running) { again = true; return; }
      running = true;
      var number = ++latest;
      place.dataset.state = "asking";
      answer().then(function (outcome) { show(outcome); }, function (error) {
        status.textContent = "This move failed: " + error.message;
        status.classList.add("bad");
      }).then(function () {
        running = false;
        if (again) { again = false; ask(); } else if (number === latest) place.dataset.state = "answered";
      });
    }

    function show(outcome) {
      var logits = outcome ? outcome.logits : config.before.logits;
      var shares = outcome ? outcome.probabilities : config.before.probabilities;
      status.classList.remove("bad");
      status.textContent = outcome ? outcome.words : "Nothing is moved.";
      var notes = outcome ? (outcome.cautions || []).slice() : [];
      if (outcome) {
        notes.unshift("What changed at the site is " + (100 * outcome.relativeChange).toFixed(1) + " % as large as the activation itself.");
        if (outcome.seconds !== undefined) notes.push("The model ran again, in " + outcome.seconds.toFixed(2) + " s.");
      }
      cautions.replaceChildren.apply(cautions, notes.map(function (note) { return element("li", { text: note }); }));
      fillTable(logits, shares);
      draw(function () { return widgets.plot("desk-answer"); }, function (node) {
        window.Plotly.restyle(node, { y: [config.outputs.map(function (c) { return logits[c]; })] }, [1]);
      });
      drawMaps(outcome);
    }

    function fillTable(logits, shares) {
      body.replaceChildren.apply(body, config.outputs.map(function (output, i) {
        var was = config.before.logits[output], p = config.before.probabilities[output];
        return element("tr", {}, [
          element("th", { scope: "row", text: config.classes[i] }),
          element("td", { "class": "number", text: short(was) }),
          element("td", { "class": "number", text: short(logits[output]) }),
          element("td", { "class": "number", text: signed(logits[output] - was) }),
          element("td", { "class": "number", text: p.toFixed(3) + " → " + shares[output].toFixed(3) })
        ]);
      }));
    }

    // A figure that is not drawn yet is waited for, as long as the page is the one that is shown.
    function draw(find, use) {
      if (!place.isConnected) return;
      var node = find();
      if (node && window.Plotly) use(node);
      else requestAnimationFrame(function () { draw(find, use); });
    }

    function drawMaps(outcome) {
      if (!document.querySelector('[data-plot="desk-moved"]')) return;
      draw(function () {
        return widgets.plot("desk-moved") && widgets.plot("desk-evidence-after") && widgets.plot("desk-evidence-before");
      }, function (first) {
        var before = first.mechinterpFirst || (first.mechinterpFirst = { z: first.data[0].z, end: first.data[0].zmax });
        var evidence = outcome && outcome.evidence ? outcome.evidence : null;
        var end = Math.max(before.end, evidence ? largest(evidence) : 0);
        var after = evidence ? painted(evidence) : before.z;
        window.Plotly.restyle(first, { zmin: -end, zmax: end }, [0]);
        window.Plotly.restyle(widgets.plot("desk-evidence-after"), { z: [after], zmin: -end, zmax: end }, [0]);
        var moved = outcome && outcome.moved ? outcome.moved : null;
        if (moved) window.Plotly.restyle(widgets.plot("desk-moved"), { z: [painted(moved)], zmax: largest(moved) || 1 }, [0]);
        else window.Plotly.restyle(widgets.plot("desk-moved"), { z: [[[null]]] }, [0]);
      });
    }

    function largest(grid) {
      return grid.reduce(function (most, row) {
        return row.reduce(function (m, v) { return Math.max(m, Math.abs(v)); }, most);
      }, 0);
    }

    // the picture shows through where nothing is, as in every overlay
    function painted(grid) {
      return grid.map(function (row) { return row.map(function (v) { return v === 0 ? null : v; }); });
    }

    // ---- rows

    function add(unit, stored) {
      var row = { unit: unit, how: "scale", value: 1, at: 0, stored: stored || null };
      var id = "desk-" + unit.unit.replace(" ", "-");
      var ways = config.hows.filter(function (way) { return config.live || stored[way.how]; });
      var how = element("select", { id: id + "-how", onchange: function () { begin(how.value); ask(); } },
        ways.map(function (way) { return element("option", { value: way.how, text: way.words }); }));
      var slider = element("input", { type: "range", id: id + "-value", "aria-label": unit.unit + ", value", oninput: function () {
        if (config.live) take(Number(slider.value));
        else { row.at = Number(slider.value); take(row.stored[row.how].values[row.at]); }
        ask();
      } });
      var number = element("input", { type: "number", step: "any", "aria-label": unit.unit + ", value as a number", onchange: function () {
        if (number.value === "" || !isFinite(Number(number.value))) { number.value = String(row.value); return; }
        take(Number(number.value));
        ask();
      } });
      if (!config.live) number.setAttribute("readonly", "");

      function take(value) {
        row.value = value;
        if (config.live) slider.value = String(value);
        number.value = String(Number(value.toPrecision(4)));
        slider.setAttribute("aria-valuetext", short(value));
        if (!config.live) rows.forEach(function (other) { if (other !== row) other.begin("scale"); });
      }

      function begin(chosen) {
        row.how = chosen;
        how.value = chosen;
        if (!config.live) {
          var values = row.stored[chosen].values;
          row.at = Math.max(0, values.indexOf(chosen === "scale" ? 1 : values[values.length - 2]));
          slider.min = "0"; slider.max = String(values.length - 1); slider.step = "1"; slider.value = String(row.at);
          row.value = values[row.at];
          number.value = String(row.value);
          slider.setAttribute("aria-valuetext", short(row.value));
          if (chosen !== "scale") take(row.value);
          return;
        }
        var end = 2 * Math.max(Math.abs(unit.largest), unit.inRun || 0) || 1;
        var low = chosen !== "scale" && unit.unit.indexOf("channel") === 0 ? -end : 0;
        slider.min = String(low);
        slider.max = String(chosen === "scale" ? SCALE_END : end);
        slider.step = chosen === "scale" ? "0.05" : String(Number((end / 100).toPrecision(2)));
        take(chosen === "scale" ? 1 : unit.largest);
      }

      row.begin = begin;
      var name = unit.slug ? element("a", { href: "#/" + unit.slug, text: unit.unit }) : element("span", { text: unit.unit });
      row.node = element("fieldset", { "class": "desk-row" }, [
        element("legend", {}, [name, element("span", { "class": "desk-fact", text: " largest here " + short(unit.largest)
          + (unit.inRun ? " of " + short(unit.inRun) + " in the run" : "") + " · adds about " + unit.relevance })]),
        element("label", { "for": id + "-how", "class": "unseen", text: unit.unit + ", what is done" }), how, slider, number
      ]);
      rows.push(row);
      list.append(row.node);
      begin("scale");
      return row;
    }

    function reset() {
      rows.forEach(function (row) { row.begin("scale"); });
      ask();
    }

    // ---- the parts

    if (config.live) config.units.forEach(function (unit) { add(unit); });
    else storedUnits(config).forEach(function (pair) { add(pair[0], pair[1]); });

    var tools = [element("button", { type: "button", text: "Put everything back", onclick: reset })];
    if (config.live) tools = finder(config, rows, add, status).concat(tools);
    var heads = ["class", "logit as it is", "after", "change", "probability"];
    place.append(
      element("div", { "class": "desk-grid" }, [
        element("div", {}, [list, element("div", { "class": "desk-tools" }, tools)]),
        element("div", {}, [status, element("div", { "class": "table-frame", role: "region", tabindex: "0", "aria-label": "The answer" }, [
          element("table", { "class": "table" }, [
            element("caption", { text: "The answer on this image" }),
            element("thead", {}, [element("tr", {}, heads.map(function (head, i) {
              return element("th", { scope: "col", "class": i ? "number" : null, text: head });
            }))]), body])
        ]), cautions])
      ]));
    fillTable(config.before.logits, config.before.probabilities);
    place.dataset.state = "answered";
  }

  function storedUnits(config) {
    var found = new Map();
    config.stored.forEach(function (entry) {
      if (!found.has(entry.unit)) {
        var unit = config.units.find(function (u) { return u.unit === entry.unit; });
        found.set(entry.unit, [unit, {}]);
      }
      found.get(entry.unit)[1][entry.how] = entry;
    });
    return Array.from(found.values());
  }

  // Takes any feature or channel of the site to the desk.
  function finder(config, rows, add, status) {
    var kind = element("select", { id: "desk-kind" }, ["feature", "channel"].map(function (name) {
      return element("option", { value: name, text: name });
    }));
    var number = element("input", { type: "number", id: "desk-number", min: "0", step: "1", max: String(config.features - 1) });
    kind.addEventListener("change", function () {
      number.max = String((kind.value === "feature" ? config.features : config.channels) - 1);
    });
    function fetchUnit() {
      var unit = kind.value + " " + Number(number.value || 0);
      if (rows.some(function (row) { return row.unit.unit === unit; })) {
        status.textContent = unit + " is on the desk already.";
        return;
      }
      widgets.post("api/unit", { image: config.image, unit: unit }).then(function (found) {
        add(found).node.querySelector("input").focus();
        status.textContent = unit + " was put on the desk.";
      }, function (error) { status.textContent = error.message; });
    }
    number.addEventListener("keydown", function (event) { if (event.key === "Enter") fetchUnit(); });
    return [
      element("label", { "for": "desk-kind", text: "Take to the desk" }), kind,
      element("label", { "for": "desk-number", "class": "unseen", text: "its number" }), number,
      element("button", { type: "button", text: "Add", onclick: fetchUnit })
    ];
  }

  widgets.register("desk", desk);
}());
