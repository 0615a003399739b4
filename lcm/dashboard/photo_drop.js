// The place where a photo is dropped, chosen, pasted or taken from the examples, with a line that says what is being
// done. Texts come in the page's language and are only ever set as text.

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function render({ model, el }) {
  const text = (english, values = {}) =>
    (model.get("sentences")[english] ?? english).replace(/{(.*?)}/g, (_, name) => values[name]);
  const drop = element("label", "drop");
  drop.append(element("span", "", text("Drop a photo here, paste one, or choose a file")));
  const input = element("input");
  input.type = "file";
  input.accept = "image/*,.heic,.cr2,.cr3,.nef,.nrw,.arw,.dng,.raf,.orf,.rw2,.pef,.srw";
  drop.append(input);

  const title = element("h3", "", text("Or try an example"));
  const examples = element("div", "examples");
  const status = element("div", "status");
  const words = element("span");
  words.setAttribute("role", "status");
  const seconds = element("span"); // beside what is read out, which would be read anew each second
  seconds.setAttribute("aria-hidden", "true");
  status.append(words, seconds);
  el.append(drop, title, examples, status);
  let clock = 0;

  function say(text, kind) {
    words.textContent = text;
    status.className = `status ${kind}`;
    seconds.textContent = "";
    clearInterval(clock);
    const since = Date.now();
    const count = () => (seconds.textContent = ` ${Math.round((Date.now() - since) / 1000)} s`);
    if (kind === "busy") clock = setInterval(count, 1000);
  }

  async function take(file) {
    if (!file) return;
    if (file.size > model.get("limit")) {
      const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
      const size = (file.size / (1 << 20)).toLocaleString(document.documentElement.lang, digits);
      const large = text("the file has {size} MB; up to 10 MB are accepted: save it smaller", { size });
      say(text("{name}: {text}", { name: file.name, text: large }), "wrong");
      return;
    }
    say(text("Asking about {name} …", file), "busy");
    try {
      model.send({ name: file.name }, undefined, [await file.arrayBuffer()]);
    } catch (error) {
      say(text("{name} cannot be read; choose it again.", file), "wrong");
    }
  }

  function showExamples() {
    examples.replaceChildren();
    for (const [place, one] of model.get("examples").entries()) {
      const button = element("button");
      button.type = "button";
      const picture = element("img");
      picture.alt = text("Example: {name}", one);
      picture.src = `data:image/jpeg;base64,${one.picture}`;
      button.append(picture);
      button.addEventListener("click", () => {
        say(text("Asking about {name} …", one), "busy");
        model.send({ example: place });
      });
      examples.append(button);
    }
    title.hidden = model.get("examples").length === 0;
  }

  const showStatus = () => say(model.get("status"), model.get("kind"));
  const paste = (event) => {
    if (el.isConnected && el.offsetParent !== null) take(event.clipboardData?.files[0]);
  };
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      event.stopPropagation();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", paste);
  model.on("change:examples", showExamples);
  model.on("change:said", showStatus);
  showExamples();
  showStatus();
  return () => {
    clearInterval(clock);
    document.removeEventListener("paste", paste);
  };
}

export default { render };
