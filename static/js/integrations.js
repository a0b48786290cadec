// Small comforts of the integration panel. Every page works without them.
(() => {
  "use strict";

  // A button that copies what it stands beside. `data-copy` is its label, `data-copied` what it says afterwards.
  const addCopyButtons = (root) => {
    for (const source of root.querySelectorAll("[data-copy]:not([data-copy-ready])")) {
      source.dataset.copyReady = "";
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button button-small copy";
      button.textContent = source.dataset.copy;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(source.value ?? source.textContent);
          button.textContent = source.dataset.copied;
        } catch {
          // Not a secure origin: leave the text selected, so that Ctrl-C does it.
          if (source.select) source.select();
          else getSelection().selectAllChildren(source);
        }
        setTimeout(() => { button.textContent = source.dataset.copy; }, 2000);
      });
      source.after(button);
    }
  };

  addCopyButtons(document);
  document.addEventListener("htmx:afterSettle", () => addCopyButtons(document));
  document.addEventListener("focusin", (event) => {
    if (event.target.matches("input[readonly][data-copy]")) event.target.select();
  });
})();
