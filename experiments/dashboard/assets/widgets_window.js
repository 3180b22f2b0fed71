// The window of a page's pictures: which of their greys are drawn black and which white, by a filter over the pictures alone.
(function () {
  "use strict";

  var widgets = window.mechinterpWidgets;
  var element = widgets.element;
  // Parsed rather than made piece by piece: the parser knows the namespace of a drawing.
  var DRAWING = '<svg width="0" height="0" aria-hidden="true" class="unseen"><filter id="picture-window" '
    + 'color-interpolation-filters="sRGB"><feComponentTransfer>'
    + ["R", "G", "B"].map(function (c) { return "<feFunc" + c + ' type="linear" slope="1" intercept="0"/>'; }).join("")
    + "</feComponentTransfer></filter></svg>";

  widgets.register("window", function (place) {
    var holder = document.createElement("template");
    holder.innerHTML = DRAWING;
    var filter = holder.content.firstChild;
    var channels = Array.from(filter.querySelector("feComponentTransfer").children);
    var black = slider("window-black", "Black below", "0");
    var white = slider("window-white", "White above", "100");

    function slider(id, text, value) {
      var input = element("input", { type: "range", id: id, min: "0", max: "100", step: "1", value: value, autocomplete: "off", oninput: update });
      var shown = element("output", { "for": id });
      return { input: input, shown: shown, label: element("label", { "for": id, text: text }) };
    }

    function update(event) {
      var low = Number(black.input.value), high = Number(white.input.value);
      if (high <= low) {   // one end pushes the other
        if (event && event.target === white.input) low = Math.max(0, high - 1);
        else high = Math.min(100, low + 1);
        if (high <= low) low = high - 1;
        black.input.value = String(low);
        white.input.value = String(high);
      }
      var slope = 100 / (high - low);
      channels.forEach(function (channel) {
        channel.setAttribute("slope", String(slope));
        channel.setAttribute("intercept", String(-slope * low / 100));
      });
      [[black, low], [white, high]].forEach(function (pair) {
        pair[0].shown.textContent = pair[1] + " %";
        pair[0].input.setAttribute("aria-valuetext", pair[1] + " percent of the picture's range");
      });
    }

    place.append(filter, black.label, black.input, black.shown, white.label, white.input, white.shown,
      element("button", { type: "button", text: "Whole range", onclick: function () {
        black.input.value = "0"; white.input.value = "100"; update();
      } }));
    update();
  });
}());
