// The desk: photos with captions as a grid, of which one is current; a panel shows that one larger, with its caption as
// a field. Everything works by keys alone. The list comes without pictures, which are asked for as they come into
// view; questions to the service wait in a queue here, so that they can be counted and stopped. Texts come in the
// page's language and are only ever set as text.

const AT_ONCE = 2; // questions to the service
const STATES = { open: ["open"], approved: ["approved", "sent"], rejected: ["rejected"] };
const CONTRIBUTIONS = "contributions";
const DROPPED = "dropped";
const LAST = 2; // place of what has no confidence, behind all that has one

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function labelled(words, field, className) {
  const label = element("label", className);
  label.append(element("span", "", words), field);
  return label;
}

function render({ model, el }) {
  const text = (english, values = {}) =>
    (model.get("sentences")[english] ?? english).replace(/{(.*?)}/g, (_, name) => values[name]);
  const wish = (what, ...values) => model.send({ do: what, with: values });
  const button = (words, action, key, className = "") => {
    const made = element("button", `jupyter-button ${className}`, words);
    made.type = "button";
    if (key) made.append(element("kbd", "", key));
    made.addEventListener("click", action);
    return made;
  };

  const items = new Map(); // number -> what is known of a photo
  const cards = new Map(); // number -> its element in the grid
  let shown = []; // numbers, in the order of the grid
  let current = null; // a number
  let filter = "open";
  let past = []; // what items were before a person changed them
  let edited = null; // what the current item was before its caption was typed
  let queue = []; // questions: [what, number, ...]
  let total = 0;
  const asking = new Set(); // numbers that the service is asked about
  let isStopped = false;
  let isTouched = false; // whether a person has begun with this list, so that its head stays as it is
  let timer = 0; // of what is typed
  let sorting = 0;
  const own = model.get("language");
  const reviewsContributions = () => model.get("source") === CONTRIBUTIONS;

  // The page

  const desk = element("section", "desk");
  const sources = element("select");
  const folder = element("input");
  folder.placeholder = "/photos/2026";
  const open = element("form", "field");
  open.append(labelled(text("Folder on this machine"), folder, "field"));
  open.append(button(text("Open"), () => open.requestSubmit()));
  const files = element("input");
  files.type = "file";
  files.multiple = true;
  files.accept = "image/*,.heic,.cr2,.cr3,.nef,.nrw,.arw,.dng,.raf,.orf,.rw2,.pef,.srw";
  const from = element("div", "from");
  const others = element("details", "others");
  others.open = matchMedia("(min-width: 46em)").matches;
  const ways = element("div", "from");
  ways.append(open, labelled(text("Or drop, paste or choose photos"), files, "field"));
  others.append(element("summary", "", text("Other photos")), ways);
  from.append(labelled(text("Shown here"), sources, "field"), others);
  const about = element("div", "about");
  const status = element("p", "said");
  status.setAttribute("role", "status");
  const progress = element("progress");
  const done = element("span");
  const stop = button(text("Stop"), () => (isStopped ? resume() : halt()));
  const working = element("div", "working");
  working.append(progress, done, stop);

  const filters = element("div", "filters");
  filters.setAttribute("role", "group");
  filters.setAttribute("aria-label", text("Show"));
  const names = { open: text("To decide"), approved: text("Approved"), rejected: text("Rejected") };
  for (const [place, state] of Object.keys(STATES).entries()) {
    const made = button("", () => choose(state), "", "filter");
    made.dataset.state = state;
    made.append(element("span", "", names[state]), element("b"), element("kbd", "", `${place + 1}`));
    filters.append(made);
  }
  const contributor = element("input");
  const submit = button("", () => sendApproved(), "", "mod-primary");
  const out = element("div", "out");
  const save = element("span", "save", text("Save the approved captions:"));
  for (const [kind, name] of [["captions.csv", "CSV"], ["captions.jsonl", "JSON Lines"], ["xmp", text("XMP sidecars")]])
    save.append(button(name, () => wish("save", model.get("source"), kind)));
  out.append(labelled(text("Your name, if you like"), contributor, "field"), submit, save);

  const grid = element("div", "grid");
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-label", text("Photos"));
  const nothing = element("p", "quiet");
  const left = element("div");
  left.append(grid, nothing);

  const picture = element("img");
  picture.alt = text("Photo");
  const caption = element("textarea");
  caption.rows = 3;
  const captionLabel = labelled("", caption, "field");
  const why = element("p", "bad");
  const facts = element("p", "quiet");
  const tags = element("p", "tags");
  const accept = button(text("Accept"), () => decide("approved"), "A", "mod-primary");
  const edit = button(text("Edit"), () => caption.focus(), "E", "edit");
  const reject = button(text("Reject"), () => decide("rejected"), "R");
  const undo = button(text("Undo"), () => takeBack(), "U");
  const actions = element("div", "actions");
  actions.append(accept, edit, reject, undo);
  const reason = element("input");
  reason.placeholder = text("revoked on the dashboard");
  const because = labelled("", reason, "field");
  const revoking = element("div", "revoking");
  revoking.append(because, button(text("Revoke it for good"), () => revoke()), button(text("Keep it"), () => leave()));
  const words = element("div", "words");
  words.append(why, captionLabel, actions, revoking, facts, tags);
  const now = element("aside", "now");
  now.append(picture, words);
  const body = element("div", "body");
  body.append(left, now);

  const keys = element("p", "keys quiet");
  for (const [pressed, what] of [
    ["← → ↑ ↓ J K", text("another photo")],
    ["Enter A", text("accept")],
    ["E", text("edit")],
    ["Esc", text("leave the field")],
    ["R Delete", text("reject")],
    ["U Ctrl+Z", text("undo")],
    ["1 2 3", text("to decide, approved, rejected")],
    ["S", text("to what is to be sent")],
  ]) {
    const one = element("span");
    one.append(...pressed.split(" ").map((key) => element("kbd", "", key)), what);
    keys.append(one);
  }
  const where = text("These are the contributions in this machine's folder LCM_HOME. Corrections go to the service at {place}; if it keeps them in another folder or on another machine, they are approved and revoked there.", {
    place: model.get("place"),
  });
  const here = element("p", "quiet", where);
  const title = element("h2", "", text("Captions to review"));
  desk.append(title, from, about, status, working, filters, out, body, keys, here);
  el.append(desk);

  function say(said, kind = "") {
    status.textContent = said;
    status.className = `said ${kind}`;
  }

  function nameOf(code) {
    try {
      const found = new Intl.DisplayNames([document.documentElement.lang || "en"], { type: "language" }).of(code);
      return found ?? code;
    } catch {
      return code;
    }
  }

  function sureness(share) {
    const rounded = Math.round(100 * share);
    const told = rounded > 0 && rounded < 100 ? `${rounded} %` : rounded ? text("over 99 %") : text("under 1 %");
    return share < model.get("unsure") ? text("unsure, please look") : text("{share} sure", { share: told });
  }

  const capital = (said) => said.charAt(0).toUpperCase() + said.slice(1);

  function describe(one) {
    if (reviewsContributions()) {
      const when = `${one.received.slice(0, 16).replace("T", " ")} UTC`;
      return [one.id, when, one.source, nameOf(one.language), one.file_name].filter(Boolean).join(" · ");
    }
    const said = [];
    if (one.by_person) said.push(text("A person wrote this caption."));
    else if (one.confidence !== null) said.push(`${capital(sureness(one.confidence))}.`);
    if (one.language && one.language !== own) said.push(text("In {given}.", { given: nameOf(one.language) }));
    if (one.state === "sent") said.push(text("It was sent."));
    return [said.join(" "), one.name].filter(Boolean).join(" · ");
  }

  function reasonOf(one) {
    if (!reviewsContributions()) return one.trouble;
    if (!one.why) return "";
    const before = one.state === "approved" ? text("Approved. It was odd:") : text("To be looked at:");
    return `${before} ${one.why}`;
  }

  // The grid

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) askForPicture(Number(target.dataset.id));
    },
    { rootMargin: "400px" },
  );

  function askForPicture(number) {
    const one = items.get(number);
    if (!one || one.isAsked) return;
    one.isAsked = true;
    wish("picture", model.get("source"), number);
  }

  function cardOf(one) {
    const card = element("div", "photo");
    card.dataset.id = one.id;
    card.tabIndex = -1;
    card.setAttribute("role", "option");
    card.append(element("img"), element("span", "text"), element("span", "sure"));
    card.addEventListener("click", () => select(one.id, true));
    seen.observe(card);
    return card;
  }

  function draw(one) {
    if (!cards.has(one.id)) cards.set(one.id, cardOf(one));
    const card = cards.get(one.id);
    const [image, words, sure] = card.children;
    image.alt = one.caption || one.name || `${one.id}`;
    if (one.picture) image.src = one.picture;
    words.textContent = one.caption || (one.trouble ? "" : "…");
    const odd = reasonOf(one);
    card.classList.toggle("odd", Boolean(odd) && !(reviewsContributions() && one.state === "approved"));
    card.classList.toggle("decided", one.state !== "open");
    const isTold = !odd && !one.by_person && one.confidence !== null && one.confidence !== undefined;
    sure.textContent = odd || (isTold ? sureness(one.confidence) : one.state === "sent" ? text("It was sent.") : "");
    sure.style.setProperty("--share", isTold ? `${100 * one.confidence}%` : "0%");
  }

  const places = new Map(); // of contributions, which come in their order
  const place = (one) => places.get(one.id) ?? one.confidence ?? LAST;

  // Put the cards of the filter in order; with `keep`, those up to the current one stay where they are.
  function arrange(keep = false) {
    const wanted = [...items.values()].filter((one) => STATES[filter].includes(one.state));
    const until = keep ? shown.indexOf(current) + 1 : 0;
    const head = shown.slice(0, until).filter((id) => wanted.includes(items.get(id)));
    const rest = wanted.filter((one) => !head.includes(one.id));
    rest.sort((one, other) => place(one) - place(other) || one.id - other.id);
    shown = [...head, ...rest.map((one) => one.id)];
    const kept = new Set(shown);
    for (const card of [...grid.children]) if (!kept.has(Number(card.dataset.id))) card.remove();
    for (const [at, id] of shown.entries())
      if (grid.children[at] !== cards.get(id)) grid.insertBefore(cards.get(id), grid.children[at] ?? null);
    if (!kept.has(current)) select(shown[0] ?? null, false);
    count();
  }

  function count() {
    for (const made of filters.children) {
      const states = STATES[made.dataset.state];
      const its = [...items.values()].filter((one) => states.includes(one.state)).length;
      made.querySelector("b").textContent = its;
      made.setAttribute("aria-pressed", made.dataset.state === filter);
      made.hidden = reviewsContributions() && made.dataset.state === "rejected";
    }
    const due = [...items.values()].filter((one) => one.state === "approved").length;
    submit.textContent = text("Send {count} approved", { count: due });
    submit.disabled = due === 0;
    out.hidden = filter !== "approved" || reviewsContributions() || shown.length === 0;
    now.hidden = current === null;
    undo.disabled = past.length === 0;
    nothing.hidden = shown.length > 0;
    nothing.textContent = items.size
      ? text("Nothing is left here.")
      : reviewsContributions()
        ? text("Nothing waits: the current model has seen all contributions.")
        : text("No photos yet: open a folder, or drop some.");
    const flagged = [...items.values()].filter((one) => one.why && one.state === "open").length;
    about.hidden = !reviewsContributions();
    const sentences = [
      text("Contributions that wait for retraining: {count}. To be looked at first: {flagged}.", {
        count: items.size,
        flagged,
      }),
      text("Retrain with <code>lcm run --params retrain</code>: what is approved here takes part."),
    ];
    const line = element("p");
    for (const [at, part] of sentences.join(" ").split(/<\/?code>/).entries())
      line.append(at % 2 ? element("code", "", part) : part);
    about.replaceChildren(line);
    here.hidden = about.hidden;
  }

  function choose(state) {
    if (state === "rejected" && reviewsContributions()) return; // none is kept
    leave();
    filter = state;
    current = null;
    arrange();
    select(shown[0] ?? null, true);
  }

  function select(id, focus) {
    isTouched ||= focus;
    if (id !== current) leave();
    cards.get(current)?.setAttribute("aria-selected", "false");
    if (cards.has(current)) cards.get(current).tabIndex = -1;
    current = id;
    const card = cards.get(id);
    now.hidden = !card;
    if (!card) return;
    card.setAttribute("aria-selected", "true");
    card.tabIndex = 0;
    if (focus) {
      focusCard();
      card.scrollIntoView({ block: "nearest" });
    }
    showCurrent();
  }

  function showCurrent() {
    const one = items.get(current);
    if (!one) return;
    askForPicture(one.id);
    picture.alt = one.caption || one.name || `${one.id}`;
    if (one.picture) picture.src = one.picture;
    else picture.removeAttribute("src");
    // A caption in another language is no beginning of one in this.
    const isOther = !reviewsContributions() && one.language && one.language !== own;
    if (document.activeElement !== caption) caption.value = isOther ? "" : one.caption;
    const language = nameOf(reviewsContributions() ? one.language : own);
    captionLabel.firstChild.textContent = text("Caption, in {language}", { language });
    caption.placeholder = isOther ? one.caption : "";
    caption.readOnly = reviewsContributions() || one.state === "sent";
    edit.hidden = reviewsContributions();
    for (const made of [accept, reject]) made.disabled = one.state === "sent";
    why.textContent = reasonOf(one);
    facts.textContent = describe(one);
    tags.replaceChildren(...(one.tags ?? []).slice(0, 6).map(([word]) => element("span", "", word)));
  }

  function move(steps) {
    const at = Math.min(Math.max(shown.indexOf(current) + steps, 0), shown.length - 1);
    if (shown.length) select(shown[at], true);
  }

  // What a person decides

  const snapshot = ({ id, state, caption, by_person, language }) => ({ id, state, caption, by_person, language });

  function put(one, change) {
    Object.assign(one, change);
    if (reviewsContributions()) wish("approve", one.id, one.state === "approved");
    else wish("put", one.id, one.state, one.caption, Boolean(one.by_person), one.language);
    draw(one);
  }

  // Keep what is typed; once a caption is being typed, undo leads to what it was before.
  function keepCaption() {
    clearTimeout(timer);
    const one = items.get(current);
    const typed = caption.value.trim();
    if (!one || caption.readOnly || typed === one.caption || (!typed && caption.placeholder)) return;
    if (!edited) past.push((edited = snapshot(one)));
    put(one, { caption: typed, by_person: true, language: own });
    caption.placeholder = "";
    count();
  }

  function leave() {
    keepCaption();
    edited = null;
    revoking.hidden = true;
    actions.hidden = false;
    if ([caption, reason].includes(document.activeElement)) focusCard();
  }

  function focusCard() {
    cards.get(current)?.focus({ preventScroll: true });
  }

  function decide(state) {
    const one = items.get(current);
    if (!one || one.state === "sent") return;
    if (state === "rejected" && reviewsContributions()) {
      because.firstChild.textContent = text("Why is {number} revoked?", { number: one.id });
      revoking.hidden = false;
      actions.hidden = true;
      reason.value = "";
      reason.focus();
      return;
    }
    const before = snapshot(one);
    leave();
    if (state === "approved" && !one.caption) {
      say(text("Write a caption first."), "bad");
      caption.focus();
      return;
    }
    if (state === one.state) return move(1);
    // A caption that was just typed is undone together with what was decided.
    if (past.at(-1)?.id !== one.id || past.at(-1).caption === one.caption) past.push(before);
    put(one, { state });
    const told = {
      approved: reviewsContributions()
        ? text("Contribution {number} takes part in the next retraining.", { number: one.id })
        : text("Approved: {caption}", one),
      rejected: text("Rejected: {caption}", one),
    };
    say(told[state], "good");
    goOn(one.id);
  }

  // Go on with what comes after a photo that has left the filter.
  function goOn(id) {
    const at = shown.indexOf(id);
    select(shown[at + 1] ?? shown[at - 1] ?? null, true);
    arrange(true);
    if (current !== null) cards.get(current).scrollIntoView({ block: "nearest" });
  }

  function takeBack() {
    leave();
    const before = past.pop();
    const one = items.get(before?.id);
    if (!one) return say(text("There is nothing to undo."));
    if (one.state === "sent") return say(text("It was sent."));
    put(one, before);
    showCurrent(); // before another is, so that the field holds nothing that was undone
    if (!STATES[filter].includes(one.state)) filter = one.state;
    arrange();
    select(one.id, true);
    say(text("Undone: {caption}", one));
  }

  function revoke() {
    wish("revoke", current, reason.value.trim() || reason.placeholder);
    leave();
  }

  function sendApproved() {
    leave();
    const due = [...items.values()].filter((one) => one.state === "approved");
    if (due.length) enqueue(due.map((one) => ["send", one.id, contributor.value]));
  }

  // What the service is asked

  const isDue = (one) => one.state === "open" && !one.by_person && one.asked !== own;

  function enqueue(questions) {
    const known = new Set(queue.map(([what, id]) => `${what} ${id}`));
    const more = questions.filter(([what, id]) => !known.has(`${what} ${id}`) && !asking.has(id));
    if (!queue.length && !asking.size) total = 0;
    total += more.length;
    queue.push(...more);
    isStopped = false;
    pump();
  }

  function pump() {
    while (asking.size < AT_ONCE && queue.length && !isStopped) {
      const [what, id, ...rest] = queue.shift();
      asking.add(id);
      wish(what, id, ...rest);
    }
    const answered = total - queue.length - asking.size;
    working.hidden = !queue.length && !asking.size;
    progress.max = total;
    progress.value = answered;
    done.textContent = text("{answered} of {total}", { answered, total });
    stop.textContent = isStopped ? text("Go on") : text("Stop");
  }

  function halt() {
    isStopped = true;
    pump();
  }

  function resume() {
    isStopped = false;
    pump();
  }

  // What comes from the kernel

  function list(source, waiting, found, isOpened) {
    const isNew = source !== model.get("source");
    model.set("source", source);
    model.save_changes();
    const labels = Object.entries(waiting)
      .filter(([name]) => name !== CONTRIBUTIONS)
      .map(([name, count]) => [name, `${name === DROPPED ? text("Dropped photos") : name} (${count})`]);
    labels.push([CONTRIBUTIONS, text("Contributions that wait")]);
    sources.replaceChildren(...labels.map(([value, label]) => new Option(label, value, false, value === source)));
    if (isNew) {
      current = null;
      isTouched = false;
      past = [];
      others.open ||= !found.length;
      say("");
      queue = queue.filter(([what]) => what === "send");
      filter = "open";
    }
    const pictures = new Map(isNew ? [] : [...items].map(([id, one]) => [id, one.picture]));
    for (const card of cards.values()) seen.unobserve(card);
    items.clear();
    cards.clear();
    places.clear();
    grid.replaceChildren();
    shown = [];
    for (const [at, one] of found.entries()) {
      if (source === CONTRIBUTIONS) places.set(one.id, at);
      keep({ ...one, picture: pictures.get(one.id), isAsked: Boolean(pictures.get(one.id)) });
    }
    arrange();
    select(current, false);
    // For the keys; but a folder that is being typed is not taken from its field.
    const free = [sources, document.body, ...(isOpened ? [folder] : [])];
    if (isNew && free.includes(document.activeElement)) focusCard();
    if (source !== CONTRIBUTIONS && (isNew || !isStopped))
      enqueue([...items.values()].filter(isDue).map((one) => ["describe", one.id]));
    pump();
  }

  function keep(one) {
    items.set(one.id, Object.assign(items.get(one.id) ?? {}, one));
    draw(items.get(one.id));
  }

  function change(one) {
    const isNew = !items.has(one.id);
    const typed = one.id === current && document.activeElement === caption && caption.value.trim();
    const mine = items.get(one.id); // where a person was faster than the answer
    const isMine = mine && one.state === "open" && (mine.state !== "open" || mine.by_person || typed);
    keep(isMine ? { ...one, ...snapshot(mine) } : one);
    if (isNew && isDue(one)) enqueue([["describe", one.id]]);
    if (one.id === current) showCurrent();
    clearTimeout(sorting);
    sorting = setTimeout(() => {
      arrange(isTouched);
      if (!isTouched) select(shown[0] ?? null, false);
    }, 150);
  }

  function receive(said) {
    const { do: what, with: values } = said.wish;
    if (said.items) list(said.source, said.waiting, said.items, what === "open");
    if (said.changed) {
      asking.delete(said.changed.id);
      if (said.changed.batch === model.get("source")) change(said.changed);
      if (said.away) {
        say(said.away, "bad");
        queue = [];
      }
      pump();
    }
    if (said.jpeg && values[0] === model.get("source") && items.has(values[1])) {
      const one = items.get(values[1]);
      one.picture = `data:image/jpeg;base64,${said.jpeg}`;
      draw(one);
      if (one.id === current) showCurrent();
    }
    if (said.problems) {
      const leftOut = text("Sub-folders were left out ({folders}): open them by their own paths.", said);
      const { length: count, 0: first } = said.problems;
      const problems = count ? text("Not shown: {count}; {first}", { count, first }) : "";
      say([said.folders ? leftOut : "", problems].filter(Boolean).join(" "), problems ? "bad" : "");
    }
    if (said.revoked !== undefined) {
      const number = said.revoked;
      goOn(number);
      items.delete(number);
      arrange(true);
      say(text("Contribution {number} is revoked: image and caption are gone.", { number }), "good");
    }
    if (said.file) {
      const link = element("a");
      link.download = said.file;
      link.href = URL.createObjectURL(new Blob([said.text]));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    }
    if (said.sidecars !== undefined) {
      const { failures, dropped } = said;
      const parts = [text("Sidecars of {count} photos are up to date.", { count: said.sidecars })];
      if (dropped) parts.push(text("{count} dropped photos have no folder for one.", { count: dropped }));
      const { length: count, 0: first } = failures;
      if (count) parts.push(text("Not written: {count}; {first}", { count, first }));
      say(parts.join(" "), failures.length ? "bad" : "good");
    }
    if (said.failed) {
      asking.delete(values[0]);
      if (what === "picture" && items.has(values[1])) keep({ id: values[1], trouble: said.failed, why: said.failed });
      else say(said.failed, "bad");
      if (["put", "approve"].includes(what)) wish("look", model.get("source")); // what is kept is another
      pump();
    }
  }

  // Keys, files and the rest

  function onKey(event) {
    if (!el.isConnected || !desk.checkVisibility()) return;
    const isOurs = el.closest(".lcm-dash")?.contains(event.target);
    if (!isOurs && !(event.target === document.body && "voila" in document.body.dataset)) return;
    const field = event.target.closest?.("input, textarea, select");
    const isCommand = event.ctrlKey || event.metaKey;
    let action = null;
    if (field) {
      if (event.key === "Escape") action = leaveField;
      else if (field === caption && event.key === "Enter" && !event.shiftKey && !event.isComposing)
        action = () => decide("approved");
      else if (field === reason && event.key === "Enter") action = revoke;
    } else if (isCommand || event.altKey) {
      if (isCommand && event.key.toLowerCase() === "z" && !event.shiftKey) action = takeBack;
    } else if (!(event.target.closest?.("button, summary") && ["Enter", " "].includes(event.key))) {
      const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
      const states = Object.keys(STATES);
      action = {
        ArrowLeft: () => move(-1),
        ArrowRight: () => move(1),
        ArrowUp: () => move(-columns),
        ArrowDown: () => move(columns),
        Home: () => move(-shown.length),
        End: () => move(shown.length),
        j: () => move(1),
        k: () => move(-1),
        Enter: () => decide("approved"),
        a: () => decide("approved"),
        e: () => caption.focus(),
        r: () => decide("rejected"),
        Delete: () => decide("rejected"),
        u: takeBack,
        Escape: leaveField,
        1: () => choose(states[0]),
        2: () => choose(states[1]),
        3: () => choose(states[2]),
        s: () => {
          choose("approved");
          submit.focus();
        },
      }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    }
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  function leaveField() {
    leave();
    focusCard();
  }

  async function take(files) {
    if (!files.length) return;
    if (model.get("source") !== DROPPED) wish("look", DROPPED);
    for (const file of files) {
      if (file.size > model.get("limit")) {
        const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
        const size = (file.size / (1 << 20)).toLocaleString(document.documentElement.lang, digits);
        const large = text("the file has {size} MB; up to 10 MB are accepted: save it smaller", { size });
        say(text("{name}: {text}", { name: file.name, text: large }), "bad");
        continue;
      }
      try {
        model.send({ do: "drop", with: [file.name] }, undefined, [await file.arrayBuffer()]);
      } catch (error) {
        say(text("{name} cannot be read; choose it again.", file), "bad");
      }
    }
  }

  const paste = (event) => {
    if (el.isConnected && desk.checkVisibility()) take([...(event.clipboardData?.files ?? [])]);
  };
  sources.addEventListener("change", () => wish("look", sources.value));
  open.addEventListener("submit", (event) => {
    event.preventDefault();
    say(text("One moment …"));
    wish("open", folder.value);
  });
  files.addEventListener("change", () => {
    take([...files.files]);
    files.value = ""; // so that the same files can be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    desk.addEventListener(kind, (event) => {
      event.preventDefault();
      event.stopPropagation();
      desk.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    });
  }
  caption.addEventListener("focus", () => (edited = null));
  caption.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(keepCaption, 400);
  });
  caption.addEventListener("blur", keepCaption);
  document.addEventListener("keydown", onKey);
  document.addEventListener("paste", paste);
  model.on("msg:custom", receive);
  // Nothing is asked before the desk is seen, and it is asked anew when people come back to it.
  const watched = new IntersectionObserver((entries) => {
    const { isIntersecting } = entries.at(-1);
    const dash = el.closest(".lcm-dash");
    dash?.classList.toggle("wide", isIntersecting);
    dash?.toggleAttribute("data-lm-suppress-shortcuts", isIntersecting); // JupyterLab's, which would cut cells
    if (isIntersecting) wish("look", model.get("source"));
  });
  watched.observe(desk);
  revoking.hidden = true;
  count();
  pump();
  return () => {
    queue = [];
    for (const observer of [seen, watched]) observer.disconnect();
    document.removeEventListener("keydown", onKey);
    document.removeEventListener("paste", paste);
    model.off("msg:custom", receive);
  };
}

export default { render };
