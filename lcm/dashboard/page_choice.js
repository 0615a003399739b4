// The line of pages: buttons, of which one is the current page. It tells when it is seen for the first time, and which
// languages its reader prefers: a kernel that was started ahead of its visitor has nothing to do before.

function render({ model, el }) {
  const line = document.createElement("nav");
  line.setAttribute("aria-label", "Pages");
  function fill() {
    document.documentElement.lang = model.get("language");
    line.replaceChildren();
    for (const [place, name] of model.get("pages").entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "jupyter-button";
      button.textContent = name;
      button.addEventListener("click", () => {
        model.set("page", place);
        model.save_changes();
      });
      line.append(button);
    }
    mark();
  }
  function mark() {
    for (const [place, button] of [...line.children].entries()) {
      if (place === model.get("page")) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
  }
  model.on("change:pages", fill);
  model.on("change:page", mark);
  fill();
  el.append(line);
  model.send({ languages: navigator.languages });
}

export default { render };
