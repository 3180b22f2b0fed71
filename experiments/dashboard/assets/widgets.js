// Parts of a page that a reader works with: each script registers its own, the same in served and in exported pages.
(function () {
  "use strict";

  var makers = {};
  var asked = false;

  function element(tag, attributes, children) {
    var node = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) {
      if (name === "text") node.textContent = attributes.text;
      else if (name.slice(0, 2) === "on") node.addEventListener(name.slice(2), attributes[name]);
      else if (attributes[name] !== null && attributes[name] !== undefined) node.setAttribute(name, attributes[name]);
    });
    (children || []).forEach(function (child) { node.append(child); });
    return node;
  }

  // A renderer may keep a place and change what it is to show: what was drawn there is drawn anew then.
  function mount() {
    asked = false;
    document.querySelectorAll("[data-widget]").forEach(function (place) {
      var maker = makers[place.dataset.widget];
      if (!maker || place.mechinterpDrawn === place.dataset.config) return;
      place.mechinterpDrawn = place.dataset.config;
      place.replaceChildren();
      maker(place, JSON.parse(place.dataset.config));
    });
  }

  function soon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(mount);
  }

  // The header cannot be set by a page elsewhere without asking first, and the server never allows it.
  function post(address, value) {
    return fetch(address, {
      method: "POST", credentials: "same-origin", body: JSON.stringify(value),
      headers: { "Content-Type": "application/json", "X-Mechinterp": "1" }
    }).then(function (answer) {
      return answer.json().then(function (body) {
        if (!answer.ok) throw new Error(body.error || "the server answered " + answer.status);
        return body;
      });
    });
  }

  // Plotly's own node of a figure by its name; null until it is drawn.
  function plot(name) {
    var place = document.querySelector('[data-plot="' + name + '"]');
    var node = place && (place.classList.contains("js-plotly-plot") ? place : place.querySelector(".js-plotly-plot"));
    return node && node.data ? node : null;
  }

  window.mechinterpWidgets = {
    element: element, post: post, plot: plot,
    register: function (name, maker) { makers[name] = maker; soon(); }
  };
  new MutationObserver(soon).observe(document.documentElement,
    { childList: true, subtree: true, attributes: true, attributeFilter: ["data-config"] });
  soon();
}());
