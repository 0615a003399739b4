// The line of pages: buttons, of which one is the current page. It tells when it is seen for the first time: a kernel
// that was started ahead of its visitor has nothing to do before.

function render({ model, el }) {
  const line = document.createElement("nav");
  line.setAttribute("aria-label", "Pages");
  for (const name of model.get("pages")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "jupyter-button";
    button.textContent = name;
    button.addEventListener("click", () => {
      model.set("page", name);
      model.save_changes();
    });
    line.append(button);
  }
  function mark() {
    for (const button of line.children) {
      if (button.textContent === model.get("page")) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
  }
  model.on("change:page", mark);
  mark();
  el.append(line);
  model.send({ seen: true });
}

export default { render };
