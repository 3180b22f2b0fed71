// A note on the page, saved into the run when the reader leaves the field, presses Ctrl and Enter, or uses the button.
(function () {
  "use strict";

  var widgets = window.mechinterpWidgets;
  var element = widgets.element;
  var drafts = new Map();   // what could not be saved outlives a visit to another page

  widgets.register("notes", function (place, config) {
    var saved = config.text;
    var status = element("p", { role: "status", "class": "count", text: config.written ? "Written " + config.written + "." : "" });
    var field = element("textarea", { id: "note", rows: "4", maxlength: String(config.longest), spellcheck: "true" });
    field.value = drafts.has(config.slug) ? drafts.get(config.slug) : saved;

    function save() {
      var text = field.value;
      if (text.trim() === saved.trim()) return;
      status.textContent = "Saving …";
      widgets.post("api/notes", { slug: config.slug, text: text, insteadOf: saved }).then(function (note) {
        saved = note.text;
        drafts.delete(config.slug);
        status.textContent = note.text ? "Saved " + note.written + " in " + config.file + "." : "The note was removed.";
      }, function (error) {
        drafts.set(config.slug, text);
        status.textContent = "Not saved: " + error.message;
      });
    }

    field.addEventListener("change", save);
    field.addEventListener("keydown", function (event) {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    });
    place.append(
      element("label", { "for": "note", text: "Your note on this page" }), field,
      element("div", { "class": "desk-tools" }, [element("button", { type: "button", text: "Save", onclick: save })]), status
    );
  });
}());
