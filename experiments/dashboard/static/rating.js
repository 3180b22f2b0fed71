// The rater's page: one item after the other in an order of the rater's own; answers stay in this browser until they are saved.
(function () {
  "use strict";

  var element = window.mechinterpWidgets.element;
  var content = JSON.parse(document.getElementById("content").textContent);
  var place = document.getElementById("place");
  var SEEN = [["yes", "Yes, I see it"], ["unsure", "Not sure"], ["no", "No, nothing"]];
  var state = null;
  var shownAt = 0;

  // A browser may refuse to keep anything for a file: then answers live as long as the page.
  function keep() { try { localStorage.setItem(key(state.rater), JSON.stringify(state)); } catch (error) { /* not kept */ } }
  function key(rater) { return "mechinterp-rating-" + content.plan + "-" + rater; }
  function kept(rater) {
    try { return JSON.parse(localStorage.getItem(key(rater))); } catch (error) { return null; }
  }

  // The same rater gets the same order again; two raters get different ones.
  function orderFor(rater) {
    var seed = 2166136261;
    (content.plan + rater).split("").forEach(function (c) { seed = Math.imul(seed ^ c.charCodeAt(0), 16777619) >>> 0; });
    var order = content.items.map(function (_, i) { return i; });
    for (var i = order.length - 1; i > 0; i--) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      var j = seed % (i + 1), held = order[i];
      order[i] = order[j]; order[j] = held;
    }
    return order;
  }

  function begin() {
    var name = element("input", { type: "text", id: "rater", autocomplete: "off", maxlength: "40", required: "" });
    var form = element("form", { onsubmit: function (event) {
      event.preventDefault();
      var rater = name.value.trim();
      if (!rater) { name.focus(); return; }
      state = kept(rater) || { rater: rater, at: 0, answers: {} };
      show();
    } }, [
      element("p", { text: "You will see " + content.items.length + " galleries. In each, a computer found something that the outlined places may share; "
        + "in some there is nothing to find, because they were put together at random." }),
      element("p", { text: "Say whether you see it, name it in a few words, and choose the one picture below that belongs to the gallery too. "
        + "Choose even if you are not sure." }),
      element("label", { "for": "rater", text: "Your initials or a code" }), name,
      element("button", { type: "submit", text: "Begin" })
    ]);
    place.replaceChildren(form);
  }

  function pictures(sources, label, maker) {
    return element("ul", { "class": "thumbnails", "aria-label": label }, sources.map(function (source, i) {
      return element("li", {}, maker(source, i));
    }));
  }

  function choices(legend, name, options, chosen, onpick) {
    return element("fieldset", { "class": "rating-choice" }, [element("legend", { text: legend })].concat(options.map(function (option) {
      var id = name + "-" + option[0];
      var input = element("input", { type: "radio", name: name, id: id, value: option[0], onchange: function () { onpick(option[0]); } });
      input.checked = String(chosen) === String(option[0]);
      return element("span", {}, [input, element("label", { "for": id, text: option[1] })]);
    })));
  }

  function show() {
    var order = orderFor(state.rater);
    if (state.at >= order.length) return finish();
    var item = content.items[order[state.at]];
    var answer = state.answers[item.item] || (state.answers[item.item] = { seen: null, name: "", match: null, seconds: 0 });
    shownAt = performance.now();
    var said = element("p", { role: "status", "class": "count", text: "Gallery " + (state.at + 1) + " of " + order.length });
    var name = element("input", { type: "text", id: "name", value: answer.name, maxlength: "200", autocomplete: "off",
      oninput: function () { answer.name = name.value; keep(); } });
    var match = pictures(item.candidates, "Candidates", function (source, i) {
      var input = element("input", { type: "radio", name: "match", id: "match-" + i, value: String(i), onchange: function () { answer.match = i; keep(); } });
      input.checked = answer.match === i;
      return [element("label", { "for": "match-" + i }, [element("img", { src: source, alt: "Candidate " + (i + 1) }), "Candidate " + (i + 1)]), input];
    });
    function step(by) {
      answer.seconds = Math.round(10 * (answer.seconds + (performance.now() - shownAt) / 1000)) / 10;
      if (by > 0 && (answer.seen === null || answer.match === null)) {
        said.textContent = "Answer both questions first: do you see it, and which candidate belongs to it?";
        return;
      }
      state.at += by;
      keep();
      show();
    }
    place.replaceChildren(
      said,
      pictures(item.gallery, "Gallery", function (source, i) { return [element("img", { src: source, alt: "Picture " + (i + 1) + " of the gallery" })]; }),
      choices("Do you see what the outlined places have in common?", "seen", SEEN, answer.seen, function (value) { answer.seen = value; keep(); }),
      element("p", {}, [element("label", { "for": "name", text: "What is it? A few words; may be left empty" }), element("br"), name]),
      element("fieldset", { "class": "rating-choice" }, [element("legend", { text: "Which of these belongs to the gallery too?" }), match]),
      element("p", { "class": "desk-tools" }, [
        element("button", { type: "button", text: "← Back", onclick: function () { if (state.at) step(-1); } }),
        element("button", { type: "button", text: "Next →", onclick: function () { step(1); } })
      ])
    );
    focusTitle();
  }

  function finish() {
    place.replaceChildren(
      element("p", { role: "status", text: "Thank you, " + state.rater + ": all " + content.items.length + " galleries are rated. Save the file and send it back." }),
      element("p", { "class": "desk-tools" }, [
        element("button", { type: "button", text: "Save as JSON", onclick: function () { save("json", "application/json", asJson()); } }),
        element("button", { type: "button", text: "Save as CSV", onclick: function () { save("csv", "text/csv", asCsv()); } }),
        element("button", { type: "button", text: "← Back to the last gallery", onclick: function () { state.at -= 1; show(); } })
      ])
    );
    focusTitle();
  }

  function focusTitle() { window.scrollTo(0, 0); document.getElementById("title").focus({ preventScroll: true }); }

  function rows() {
    return orderFor(state.rater).map(function (i, position) {
      var item = content.items[i].item;
      return Object.assign({ item: item, position: position }, state.answers[item]);
    });
  }

  function asJson() { return JSON.stringify({ format: 1, plan: content.plan, rater: state.rater, answers: rows() }, null, 1) + "\n"; }

  function asCsv() {
    var columns = ["item", "position", "seen", "name", "match", "seconds"];
    function cell(value) {
      var text = value === null || value === undefined ? "" : String(value);
      if (/^[=+\-@]/.test(text) && isNaN(Number(text))) text = "'" + text;   // a table program would take it for a formula
      return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
    }
    return ["plan,rater," + columns.join(",")].concat(rows().map(function (row) {
      return [content.plan, state.rater].concat(columns.map(function (c) { return row[c]; })).map(cell).join(",");
    })).join("\r\n") + "\r\n";
  }

  function save(ending, type, text) {
    var address = URL.createObjectURL(new Blob([text], { type: type }));
    var link = element("a", { href: address, download: "rating-" + content.plan.slice(0, 6) + "-" + state.rater.replace(/[^A-Za-z0-9-]+/g, "_") + "." + ending });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(address); }, 1000);
  }

  begin();
}());
