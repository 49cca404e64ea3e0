// The page in the browser. Python tags and corrects (bert_ner/demo.py); everything here is drawn from text and offsets, as text and never as HTML.
// One box: a textarea whose own letters are transparent lies over a layer that shows the same letters with their marks. So typing, selecting,
// undoing and copying are the browser's own, and a mark can move no letter.

const WAIT = 250;        // milliseconds without a key before the text is sent; a text that takes longer to read waits as long as that
const LONGEST = 15_000;  // but no longer than this
const SURE = "=";        // the label of a confirmed sentence
const ROWS = 200;        // rows of the table that are drawn at first
const SLOW = 20_000;     // milliseconds after which the status says that it takes long

function hash(text) {                                                        // 53 bits of a text: cyrb53
  let a = 0xdeadbeef, b = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) { const c = text.charCodeAt(i); a = Math.imul(a ^ c, 2654435761); b = Math.imul(b ^ c, 1597334677); }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
  return (4294967296 * (2097151 & b) + (a >>> 0)).toString(36);
}

// The corrections of all texts, by text, in the browser's storage: an entry a text, shared by all tabs and views of one address. They stay until they are thrown away.
class Keep {
  static of(prefix) { const all = (globalThis.bertNerKeeps ??= new Map()); if (!all.has(prefix)) all.set(prefix, new Keep(prefix)); return all.get(prefix); }

  constructor(prefix) {
    Object.assign(this, { prefix, texts: new Map(), written: new Map(), views: new Set(), full: false, timer: 0 });
    this.load();
    addEventListener("storage", (e) => {                                      // another tab has changed something
      if (e.key !== null && !e.key.startsWith(prefix)) return;
      if (this.timer) this.write();
      this.load();
      for (const view of this.views) view();
    });
    addEventListener("pagehide", () => this.timer && this.write());
  }

  load() {
    if (this.full) return;
    const texts = new Map();
    this.written = new Map();
    try {
      for (let i = 0; i < localStorage.length; i++) {
        const key = localStorage.key(i);
        if (!key.startsWith(this.prefix)) continue;
        const json = localStorage.getItem(key);
        this.written.set(key, json);
        try { const { text, ...kept } = JSON.parse(json); if (Array.isArray(kept.edits)) texts.set(text, kept); } catch { /* somebody else's */ }
      }
    } catch { this.full = true; return; }                                     // a browser that stores nothing
    this.texts = new Map([...texts].sort(([, a], [, b]) => a.at - b.at));
  }

  edits(text) { return this.texts.get(text)?.edits ?? []; }
  set(text, edits, more = {}) {
    if (edits.length) this.texts.set(text, { ...this.texts.get(text), ...more, edits, at: Date.now() }); else this.texts.delete(text);
    this.later();
  }
  later() { clearTimeout(this.timer); this.timer = setTimeout(() => this.write(), 300); }
  count(which = () => true) { return new Set([...this.texts.values()].flatMap((t) => t.edits).filter(which).map((e) => e.id)).size; }

  write() {
    clearTimeout(this.timer);
    this.timer = 0;
    const now = new Map([...this.texts].map(([text, kept]) => [this.prefix + hash(text), JSON.stringify({ text, ...kept })]));
    try {
      for (const key of this.written.keys()) if (!now.has(key)) { localStorage.removeItem(key); this.written.delete(key); }
      for (const [key, json] of now) if (this.written.get(key) !== json) { localStorage.setItem(key, json); this.written.set(key, json); }
      this.full = false;
    } catch {                                                                 // no room: what is saved in a file already can go
      const spare = [...this.texts].find(([, t]) => t.edits.every((e) => e.saved));
      if (spare) { this.texts.delete(spare[0]); return this.write(); }
      this.full = true;
    }
    for (const view of this.views) view();
  }
}

// One shown text with its marks, a block a line, so that an edit lays out its own lines only.
class Layer {
  constructor(node) { Object.assign(this, { node, text: null, lines: [], starts: [], entities: [] }); }

  show(text, entities, fresh = true) {
    const lines = text.split(/(?<=\n)/);
    if (!lines.length || text.endsWith("\n")) lines.push("");
    let head = 0, tail = 0;
    if (!fresh && this.text !== null) {
      const most = Math.min(lines.length, this.lines.length);
      while (head < most && lines[head] === this.lines[head]) head++;
      while (tail < most - head && lines.at(-1 - tail) === this.lines.at(-1 - tail)) tail++;
      head = Math.max(0, head - 1); tail = Math.max(0, tail - 1);          // an entity may reach over a line's end
    }
    const starts = [];
    let at = 0;
    for (const line of lines) { starts.push(at); at += line.length; }
    const blocks = [];
    entities.forEach((e, i) => { e.at = i; });
    this.nested = entities.some((e, i) => i && entities[i - 1].end > e.start);
    let next = 0, over = [];                                                  // entities that a place lies in, the first to begin first
    for (let i = head; i < lines.length - tail; i++) {
      const block = el("div", { className: "ner-line" }), end = starts[i] + lines[i].length;
      over = over.filter((e) => e.end > starts[i]);
      const here = [...over];
      while (next < entities.length && entities[next].start < end) { const e = entities[next++]; if (e.end > starts[i]) { here.push(e); over.push(e); } }
      const borders = new Set([end]);
      for (const e of here) { borders.add(Math.max(e.start, starts[i])); borders.add(Math.min(e.end, end)); }
      let from = starts[i];
      for (const to of [...borders].sort((a, b) => a - b)) {
        if (to <= from) continue;
        let part = text.slice(from, to);
        for (const e of here.filter((e) => e.start <= from && e.end >= to).reverse()) {      // marks within marks where entities overlap
          const mark = el("mark", { className: `ner-${e.color}` }, part);
          if (from === e.start) mark.dataset.label = e.label;
          const after = entities[e.at + 1];
          if (after && after.start - e.start < 8 && after.start >= e.end) mark.classList.add("ner-near");       // its label must not run into the next one
          mark.entity = e;
          part = mark;
        }
        block.append(part);
        from = to;
      }
      blocks.push(block);
    }
    const old = [...this.node.children];
    if (head === 0 && tail === 0) this.node.replaceChildren(...blocks);
    else {
      const after = old[old.length - tail] ?? null;
      for (const b of old.slice(head, old.length - tail)) b.remove();
      for (const b of blocks) this.node.insertBefore(b, after);
    }
    Object.assign(this, { text, lines, starts, entities });
  }

  tint() {                                                                    // what is hidden or differs changes classes, nothing else
    for (const m of this.node.querySelectorAll("mark")) {
      m.classList.toggle("ner-off", m.entity.hidden);
      m.classList.toggle("ner-differs", m.entity.differs);
    }
  }

  place(offset) {                                                             // a character's text node, and where in it
    let a = 0, b = this.starts.length - 1;
    while (a < b) { const m = (a + b + 1) >> 1; if (this.starts[m] <= offset) a = m; else b = m - 1; }
    let left = offset - this.starts[a];
    const walk = document.createTreeWalker(this.node.children[a], NodeFilter.SHOW_TEXT);
    let last = null;
    while (walk.nextNode()) { last = walk.currentNode; if (left <= last.length) return [last, left]; left -= last.length; }
    return last ? [last, last.length] : [this.node.children[a], 0];
  }

  range(start, end) {
    const range = document.createRange();
    let [node, at] = this.place(start);
    range.setStart(node, at);
    range.setEnd(...this.place(end));
    return range;
  }

  at(offset) {                                                                // the entity at a character, the shortest if there are several
    if (this.nested) return this.entities.filter((e) => e.start <= offset && offset < e.end).sort((a, b) => a.end - a.start - (b.end - b.start))[0];
    let a = 0, b = this.entities.length - 1;
    while (a <= b) {
      const m = (a + b) >> 1, e = this.entities[m];
      if (offset < e.start) b = m - 1; else if (offset >= e.end) a = m + 1; else return e;
    }
  }
}

function render({ model, el: root }) {
  const start = model.get("start"), { types, examples, engines, limit } = start;
  const labels = Object.fromEntries(engines), names = Object.keys(types), name = (t) => types[t] ?? t;
  const files = new Map(), counted = new Map(), off = new Set(), waiting = new Map(), keep = Keep.of(`bert-ner fix ${names.join(" ")}: `);
  const state = { text: start.text, least: 0, sides: [], asked: 0, busy: false, again: false, sort: "start", up: true, all: false, hits: [], hit: -1, ms: 0, read: 0 };
  const voila = !!document.body.dataset.voila;                              // else JupyterLab
  const view = crypto.getRandomValues(new Uint32Array(1))[0];               // two views of one widget get each other's answers
  const places = [`bert-ner text ${start.id}`, `bert-ner text ${location.pathname}`];                 // where the text itself is kept
  let timer = 0, slow = 0, settled = 0, noted = 0, accepted = null, before = null, doc = 0, listed = "";
  const docs = new Map();                                                   // hash of a text that was here -> the document that it is a state of

  // ---------------------------------------------------------------- the parts of the page
  const field = (label, control, cls = "") => Object.assign(control, { ariaLabel: label }) && el("label", { className: `ner-field ${cls}` }, el("span", {}, label), control);
  const option = (value, text) => el("option", { value }, text);
  const source = el("select", { onchange: () => choose(source.value) });
  const engine = el("select", { onchange: ask }, ...engines.map(([k, v]) => option(k, v)));
  const other = el("select", { onchange: ask }, option("", "nothing"), ...engines.map(([k, v]) => option(k, v)));
  const url = el("input", { type: "text", value: start.url, onchange: ask, spellcheck: false });
  const urlField = field("Triton's address", url);
  const upload = el("input", { type: "file", multiple: true, accept: ".txt,.text,.md,.jsonl,.json,.conll,text/plain", className: "ner-hidden", tabIndex: -1, ariaLabel: "Text files",
    onchange: () => { open([...upload.files]); upload.value = ""; } });
  const head = el("div", { className: "ner-row ner-head" }, field("Text from", source), field("Engine", engine), field("Compare with", other), urlField,
    el("button", { type: "button", className: "ner-button", onclick: () => upload.click() }, "Open files…"), upload);

  const tabs = el("div", { className: "ner-tabs ner-row", role: "tablist", ariaLabel: "Your files", hidden: true, onkeydown: walk });
  const overview = el("section", { className: "ner-overview", role: "tabpanel", ariaLabel: "Summary of your files", hidden: true });
  const chips = names.map((t) => el("button", { type: "button", className: "ner-chip", ariaPressed: "true", title: `Show or hide: ${name(t)}`,
    onclick: () => { off.has(t) ? off.delete(t) : off.add(t); filter(); } },
    el("mark", { className: `ner-${start.colors[t] ?? "other"}` }, t), el("span", {}, name(t)), el("b", {}, "0")));
  const legend = el("div", { className: "ner-legend ner-row", role: "group", ariaLabel: "Types of entities" }, ...chips);
  const slider = el("input", { type: "range", min: 0, max: 100, value: 0, oninput: () => { state.least = slider.value / 100; filter(); } });
  const least = el("output", {}, "0.00");
  const query = el("input", { type: "search", spellcheck: false, placeholder: "in the text", oninput: () => find(true),
    onkeydown: (e) => { if (e.key === "Enter") { e.preventDefault(); step(e.shiftKey ? -1 : 1); } } });
  const hits = el("span", { className: "ner-hits", role: "status" });
  const arrow = (label, path, by) => el("button", { type: "button", className: "ner-icon", ariaLabel: label, title: label, disabled: true, onclick: () => step(by) }, icon(path));
  const back = arrow("Previous match", "M3 10l5-5 5 5", -1), on = arrow("Next match", "M3 6l5 5 5-5", 1);
  const tools = el("div", { className: "ner-row ner-tools" }, field("Search", query, "ner-line-field"), back, on, hits,
    el("label", { className: "ner-field ner-line-field ner-least" }, el("span", {}, "Minimum score"), Object.assign(slider, { ariaLabel: "Minimum score" }), least));

  const input = el("textarea", { className: "ner-input ner-letters", ariaLabel: "Text", spellcheck: false, autocomplete: "off", dir: "auto", value: state.text,
    placeholder: "Type or paste a text in English, or drop text files here" });
  input.setAttribute("autocapitalize", "off");
  const pane = (extra, ...over) => {
    const text = el("div", { className: "ner-text ner-letters", dir: "auto" }), title = el("p", { className: "ner-title", hidden: true });
    const box = el("div", { className: "ner-box", ...extra }, el("div", { className: "ner-stack" }, text, ...over));
    return { box, title, layer: new Layer(text), node: el("section", { className: "ner-side" }, title, box) };
  };
  const left = pane({}, input), right = pane({ tabIndex: 0, role: "region", ariaLabel: "The same text for comparison" }), panes = [left, right];
  left.layer.node.setAttribute("aria-hidden", "true");
  const card = el("div", { className: "ner-card", role: "dialog", hidden: true });
  const sides = el("div", { className: "ner-sides", ariaBusy: "false" }, left.node, right.node, card);
  const status = el("p", { className: "ner-status", role: "status" }), alert = el("p", { className: "ner-status ner-error", role: "alert", hidden: true });
  const hint = el("p", { className: "ner-hint" }, "Click an entity, or select any text, for details, to correct it, or to confirm its sentence; from the keyboard, press Ctrl+Enter.");
  const note = el("p", { className: "ner-note", role: "status", hidden: true }), model_ = el("p", { className: "ner-hint ner-about" });

  const button = (text, f, cls = "ner-button") => el("button", { type: "button", className: cls, onclick: f }, text);
  const copyButton = button("Copy as HTML", copy);
  const downloads = el("div", { className: "ner-row ner-downloads", role: "group", ariaLabel: "Take it with you" }, copyButton,
    ...[["json", "JSON"], ["csv", "CSV"], ["conll", "CoNLL"]].map(([kind, label]) => button(`Download ${label}`, () => download(kind))));
  const changes = el("span", { className: "ner-changes", role: "status" }), undoButton = button("Undo", undo);
  const away = button("Throw away…", throwAway), calm = () => { away.textContent = "Throw away…"; delete away.dataset.sure; };
  away.addEventListener("blur", calm);
  const how = el("p", { className: "ner-hint" });
  how.append("To train with the saved file, give its path: ", el("code", {}, "dvc exp run -S data.more=corrections.csv"), " adds its sentences to those that the model learns from.");
  const fixes = el("section", { className: "ner-fixes", ariaLabel: "Corrections", hidden: true }, el("div", { className: "ner-row" }, changes, undoButton, away,
    Object.assign(button("Save corrections", () => download("corrections"), "ner-button ner-main"), { title: "A CSV in the corpus's own format, ready for training" })), how);

  const filterBox = el("input", { type: "search", placeholder: "text or type", spellcheck: false, oninput: () => { state.all = false; table(); } });
  const columns = [["text", "Text"], ["label", "Type"], ["count", "Count"], ["count2", "Right"], ["score", "Score"], ["start", "First at"]];
  const numeric = new Set(["count", "count2", "score", "start"]);
  const heads = columns.map(([key, label]) => el("th", { scope: "col", className: numeric.has(key) ? "num" : "" },
    el("button", { type: "button", onclick: () => { state.up = state.sort === key ? !state.up : !["count", "count2"].includes(key); state.sort = key; table(); } },
      el("span", {}, label), el("span", { className: "ner-sort", ariaHidden: "true" }))));
  const body = el("tbody"), more = button("", () => { state.all = true; table(); });
  const tally = el("span", { className: "ner-hits", role: "status" });
  const list = el("section", { className: "ner-list", ariaLabel: "Table of entities" },
    el("div", { className: "ner-row" }, field("Filter the table", filterBox, "ner-line-field"), tally),
    el("div", { className: "ner-scroll" }, el("table", { className: "ner-table" }, el("thead", {}, el("tr", {}, ...heads)), body)), more);

  const sheet = el("style", {}, `.ner-still-${start.id} { display: none }
::highlight(ner-found-${start.id}) { background: #ffe27a; color: #111 } ::highlight(ner-now-${start.id}) { background: #ff9d2e; color: #111 }
::highlight(ner-chosen-${start.id}) { text-decoration: underline 2px } ::highlight(ner-sure-${start.id}) { text-decoration: underline dotted 1.5px; text-underline-offset: 6px }`);
  root.classList.add("ner-demo");
  root.dataset.lmSuppressShortcuts = "true";                                 // JupyterLab's one-letter commands stay out
  root.addEventListener("keydown", (e) => { if (e.key === "Escape" && !card.hidden) { e.preventDefault(); hide(true); } e.stopPropagation(); });
  root.append(sheet, head, tabs, overview, legend, tools, sides, hint, alert, note, el("div", { className: "ner-row ner-under" }, el("div", {}, status, model_), downloads), fixes, list);

  // ---------------------------------------------------------------- asking Python
  function send(kind, more = {}, buffers = []) {
    const id = `${view} ${++state.asked}`;
    return new Promise((done) => {
      waiting.set(id, done);
      model.send({ id, kind, text: state.text, edits: more.edits ?? told(state.text), engines: chosen(), url: url.value.trim(), ...more }, undefined, buffers);
    });
  }
  const receive = (m) => { const done = waiting.get(m.id); waiting.delete(m.id); done?.(m); };
  function told(text) {
    const [, point] = scales(text);
    return keep.edits(text).map((e) => [point(e.start), point(e.end), e.label, e.words ?? null, (e.entities ?? []).map(([a, b, t]) => [point(a), point(b), t])]);
  }
  const mine = () => keep.edits(state.text);

  function stopped() {                                                        // nothing is lost with the kernel: all that a person did is kept here
    state.gone = true;
    for (const t of [timer, slow]) clearTimeout(t);
    sides.ariaBusy = "false";
    say("");
    warn(voila ? "The kernel has stopped. Your text and your corrections are kept." : "The kernel has stopped. Your text and your corrections are kept: run the cell again.");
    if (voila) alert.append(" ", button("Reload the page", () => { unguard(); location.reload(); }));
  }
  const chosen = () => [engine.value, ...(other.value ? [other.value] : [])];

  async function ask() {
    clearTimeout(timer);
    timer = 0;
    if (state.gone) return stopped();
    urlField.hidden = !chosen().includes("triton");
    right.node.hidden = !other.value;
    sides.classList.toggle("ner-two", !!other.value);
    if (state.busy) { state.again = true; return; }                          // one at a time; the last one wins
    state.busy = true;
    sides.ariaBusy = "true";
    say("Looking for entities …");
    slow = setTimeout(() => say("Still looking: the text is long, or the kernel has stopped. Your text and your corrections are kept, also when you reload the page."), SLOW);
    do {
      state.again = false;
      const text = state.text, answer = await send("tag");
      if (!state.again && text === state.text) take(answer);
    } while (state.again);
    clearTimeout(slow);
    state.busy = false;
    sides.ariaBusy = String(!!timer);
  }

  function take(answer) {
    const [unit] = scales(state.text);
    const errors = [answer.error, ...(answer.sides ?? []).map((s) => s.error), ...settle(answer.edits ?? [], unit)].filter(Boolean);
    if (answer.sides) [state.ms, state.read] = [answer.sides.reduce((sum, s) => sum + s.ms, 0), state.text.length];
    if (answer.sides) state.sides = answer.sides.map((s) => ({ ...s, entities: s.entities.map(([a, b, label, score, by, also]) =>
      ({ start: unit(a), end: unit(b), from: a, to: b, label, score, by, also, color: start.colors[label] ?? "other" })) }));
    else if (answer.kind === "tag") state.sides = [];
    warn([...new Set(errors)].map((e) => e[0].toUpperCase() + e.slice(1)).join(". "));
    note.textContent = answer.note ?? "";
    note.hidden = !answer.note;
    hide();
    filter(true);
    say(summary());
    tell();
  }

  function settle(told, unit) {                                               // Python has said where each correction stands now, or why it does not count
    const edits = mine(), wrong = [];
    if (told.length !== edits.length) return wrong;
    const fixed = edits.flatMap((e, i) => {
      if (typeof told[i] !== "string") return [{ ...e, start: unit(told[i][0]), end: unit(told[i][1]), words: told[i][2] }];
      wrong.push(`A correction does not count: ${told[i]}`);
      return [];
    });
    if (wrong.length && accepted && accepted.text !== state.text && edits.some((e) => accepted.edits.some((f) => f.id === e.id)) && !keep.texts.has(accepted.text))
      keep.set(accepted.text, accepted.edits, accepted.by);                   // it stays with the text that it was made to
    if (JSON.stringify(fixed) !== JSON.stringify(edits)) keep.set(state.text, fixed);
    accepted = fixed.length ? { text: state.text, edits: fixed, by: { engine: keep.texts.get(state.text)?.engine, url: keep.texts.get(state.text)?.url } } : null;
    return wrong;
  }

  function tell() {                                                           // what is corrected, here and elsewhere
    const all = keep.count(), open = keep.count((e) => !e.saved), here = mine().length, sure = keep.count((e) => e.label === SURE);
    fixes.hidden = !all;
    undoButton.disabled = !here;
    if (away.dataset.sure !== String(all)) calm();
    const what = [all - sure ? count(all - sure, "correction") : "", sure ? count(sure, "confirmed sentence") : ""].filter(Boolean).join(" and ");
    changes.textContent = (what || "0 corrections") + (here < all ? `, ${here} in this text` : "") + (open === all ? ", not saved yet" : open ? `, ${open} not saved yet` : ", all saved");
    if (keep.full && open) changes.textContent += ": this browser has no room to keep them, save them now";
    const [a, b] = [chosen()[0], start.abouts];
    model_.textContent = a === "triton" ? `Model: that of the server at ${url.value.trim()}` : b[a] ? `Model: ${b[a]}` : "Model: what it was trained on is not known";
    mark("sure", mine().filter((e) => e.label === SURE).map((e) => left.layer.range(e.start, e.end)));
    sources();
  }

  const warn = (text) => { alert.textContent = text; alert.hidden = !text; };
  const say = (text) => { status.textContent = text; status.hidden = !text; };
  const visible = (i) => (state.sides[i]?.entities ?? []).filter((e) => !e.hidden);
  const key = (e) => `${e.start} ${e.end} ${e.label}`;
  const compared = () => state.sides.length > 1 && !state.sides.some((s) => s.error);

  function summary() {
    const told = state.sides.filter((s) => !s.error).map((s) => `${count(s.entities.length, "entity", "entities")} in ${s.ms.toLocaleString("en")} ms by ${labels[s.engine]}`);
    if (state.sides.length < 2 || told.length < 2) return told.join("");
    const differ = state.sides.map((s) => s.entities.filter((e) => e.differs).length);
    return differ[0] + differ[1] ? `${count(differ[0] + differ[1], "difference")}: ${differ[0]} only left, ${differ[1]} only right` : "No differences";
  }

  // ---------------------------------------------------------------- drawing
  function filter(redraw = false) {
    const two = compared();
    for (const s of state.sides) for (const e of s.entities) e.hidden = off.has(e.label) || (e.score < state.least && !e.by);
    const keys = [0, 1].map((i) => new Set(visible(i).map(key)));
    state.sides.forEach((s, i) => s.entities.forEach((e) => { e.differs = two && !e.hidden && !keys[1 - i].has(key(e)); }));
    panes.forEach((p, i) => {
      const s = state.sides[i];
      if (redraw) p.layer.show(state.text, s?.entities ?? []);
      p.layer.tint();
      p.title.hidden = !two;
      if (s) p.title.replaceChildren(el("b", {}, labels[s.engine]), ` ${count(visible(i).length, "entity", "entities")} · ${(s.ms ?? 0).toLocaleString("en")} ms`);
    });
    if (two) say(summary());
    least.textContent = state.least.toFixed(2);
    const by = {};
    for (const e of state.sides[0]?.entities ?? []) if (e.by || e.score >= state.least) by[e.label] = (by[e.label] ?? 0) + 1;
    chips.forEach((c, i) => { c.ariaPressed = String(!off.has(names[i])); c.lastChild.textContent = by[names[i]] ?? 0; });
    table();
    find(false);
  }

  function groups() {
    const rows = new Map();
    [0, 1].forEach((i) => visible(i).forEach((e) => {
      const text = state.text.slice(e.start, e.end), k = `${e.label} ${text}`;
      const row = rows.get(k) ?? { text, label: e.label, count: 0, count2: 0, sum: 0, n: 0, start: e.from, at: [], side: i, turn: 0 };
      if (i) row.count2++; else row.count++;
      if (i === row.side) { row.sum += e.score; row.n++; row.at.push(e); }
      row.score = row.sum / row.n;
      row.differs ||= e.differs;
      rows.set(k, row);
    }));
    return [...rows.values()];
  }

  function table() {
    const two = compared(), wanted = filterBox.value.trim().toLowerCase();
    const all = groups(), rows = all.filter((r) => `${r.text} ${r.label} ${name(r.label)}`.toLowerCase().includes(wanted));
    const [k, sign] = [state.sort, state.up ? 1 : -1];
    rows.sort((a, b) => sign * (typeof a[k] === "number" ? a[k] - b[k] : a[k].localeCompare(b[k], "en")) || a.start - b.start);
    columns.forEach(([c], i) => {
      heads[i].hidden = c === "count2" && !two;
      if (c === "count") heads[i].querySelector("span").textContent = two ? "Left" : "Count";
      if (c === k) heads[i].setAttribute("aria-sort", state.up ? "ascending" : "descending"); else heads[i].removeAttribute("aria-sort");
      heads[i].querySelector(".ner-sort").textContent = c === k ? (state.up ? "▲" : "▼") : "";
    });
    const cell = (n) => el("td", { className: "num" }, n);
    body.replaceChildren(...(state.all ? rows : rows.slice(0, ROWS)).map((r) => el("tr", { className: r.differs ? "ner-row-differs" : "" },
      el("td", {}, el("button", { type: "button", className: "ner-go", title: "Show it in the text", onclick: () => go(r) }, r.text)),
      el("td", {}, el("mark", { className: `ner-${start.colors[r.label] ?? "other"}` }, r.label), el("span", { className: "ner-name" }, ` ${name(r.label)}`)),
      cell(r.count), ...(two ? [cell(`${r.count2}${r.differs ? " ≠" : ""}`)] : []), cell(r.score.toFixed(3)), cell(r.start))));
    const nothing = state.sides.length && !state.sides[0].error ? (all.length ? "No row fits the filter." : "No entities in this text.") : "";
    if (!rows.length && nothing) body.append(el("tr", {}, el("td", { colSpan: two ? 6 : 5 }, nothing)));
    list.hidden = downloads.hidden = !state.sides.length || !!state.sides[0].error;
    tally.textContent = wanted ? `${rows.length} of ${count(all.length, "row")}` : "";
    more.hidden = state.all || rows.length <= ROWS;
    more.textContent = `Show all ${count(rows.length, "row")}`;
  }

  function go(row) {
    const e = row.at[row.turn++ % row.at.length];
    reveal(panes[row.side], e.start, e.end);
    about(row.side, e.start, e.end, e);
  }

  function reveal(p, start, end) {
    const r = p.layer.range(start, end).getBoundingClientRect(), b = p.box.getBoundingClientRect();
    if (r.top < b.top + 30 || r.bottom > b.bottom - 30) p.box.scrollTop += r.top - b.top - b.height / 3;
    if (b.top < 0 || b.bottom > innerHeight) p.box.scrollIntoView({ block: "nearest" });
  }

  // ---------------------------------------------------------------- the card: what an entity is, and what it should be
  let shown = null;
  function about(side, a, b, entity, exact = !!entity) {
    const title = state.text.slice(a, b).replace(/\s+/g, " "), short = title.length > 60 ? `${title.slice(0, 59)}…` : title, [, point] = scales(state.text);
    const soft = (text) => el("p", { className: "ner-soft" }, text);
    const bar = (what, p) => el("li", {}, el("span", {}, what), el("meter", { min: 0, max: 1, value: p, ariaLabel: `probability of ${what}` }),
      el("span", { className: "num" }, p.toFixed(2)));
    const others = (also) => (also ? [soft(also.length ? "It could also be" : "Nothing else comes near."),
      el("ul", { className: "ner-also" }, ...also.map(([t, p]) => bar(t === "O" ? "no entity" : name(t), p)))] : [soft("This engine tells no alternatives.")]);
    const facts = entity ? [
      el("p", {}, entity.by ? "Corrected by you" : `Score ${entity.score.toFixed(2)}`, ` · characters ${entity.from} to ${entity.to}`),
      ...(entity.by ? [] : others(entity.also)),
    ] : [el("p", {}, `Characters ${point(a)} to ${point(b)}`)];
    const bare = !/[\p{L}\p{N}]/u.test(state.text.slice(a, b)), sure = mine().some((e) => e.label === SURE && e.start <= a && e.end >= b);
    if (bare) facts.push(soft("Punctuation alone can be no entity: select a word."));
    const close = el("button", { type: "button", className: "ner-icon", ariaLabel: "Close", title: "Close (Escape)", onclick: () => hide(true) }, icon("M4 4l8 8M12 4l-8 8"));
    const fix = (t, text) => el("button", { type: "button", className: "ner-fix", disabled: entity?.label === t || (bare && t !== ""), onclick: () => correct(a, b, t) }, ...text);
    card.replaceChildren(
      el("div", { className: "ner-card-head" }, ...(entity ? [el("mark", { className: `ner-${entity.color}` }, entity.label)] : []),
        el("b", {}, entity ? name(entity.label) : "Your selection"), close),
      el("p", { className: "ner-quote" }, short), ...facts,
      soft(entity ? "Correct it to" : "Mark it as"),
      el("div", { className: "ner-fixlist" }, ...names.map((t) => fix(t, [el("mark", { className: `ner-${start.colors[t]}` }, t), ` ${name(t)}`])), fix("", ["no entity"])),
      el("button", { type: "button", className: "ner-button ner-sure", disabled: sure, onclick: () => confirm(a, b) }, sure ? "Sentence confirmed" : "The whole sentence is right"));
    card.ariaLabel = entity ? `${short}: ${name(entity.label)}` : `Selection: ${short}`;
    card.hidden = false;
    shown = { side, a, b };
    mark("chosen", [panes[side].layer.range(a, b)]);
    place();
    if (!exact) snap(a, b);
  }

  async function snap(a, b) {                                                 // a correction marks whole words: show them
    const text = state.text;
    let x = a, y = b;
    while (x && !/\s/.test(text[x - 1])) x--;
    while (y < text.length && !/\s/.test(text[y])) y++;
    const piece = text.slice(x, y + 1), [unit, point] = scales(piece), now = shown;
    const words = await send("words", { text: piece, edits: [], start: point(a - x), end: point(b - x) });
    if (words.error || shown !== now || state.text !== text) return;
    const [c, d] = [x + unit(words.start), x + unit(words.end)], e = left.layer.at(c), inside = card.contains(document.activeElement);
    const entity = e && !e.hidden && e.start === c && e.end === d ? e : undefined;
    if (c === a && d === b && !entity) return;
    about(0, c, d, entity, true);
    if (inside) card.querySelector("button:not(.ner-icon):not(:disabled)")?.focus();
  }

  function place() {
    if (!shown) return;
    const p = panes[shown.side], r = p.layer.range(shown.a, shown.b).getClientRects()[0], b = p.box.getBoundingClientRect(), s = sides.getBoundingClientRect();
    if (!r || r.bottom < b.top || r.top > b.bottom) return hide();
    const width = card.offsetWidth;
    card.style.left = `${Math.max(0, Math.min(r.left - s.left - 12, s.width - width))}px`;
    const below = r.bottom + card.offsetHeight + 12 < innerHeight || r.top - card.offsetHeight - 20 < Math.max(20, root.getBoundingClientRect().top);
    card.style.top = `${below ? r.bottom - s.top + 8 : r.top - s.top - card.offsetHeight - 20}px`;
  }

  function hide(focus) {
    if (!shown) return;
    const [{ side, b }, inside] = [shown, card.contains(document.activeElement)];
    shown = null;
    card.hidden = true;
    mark("chosen", []);
    if (focus && inside) { if (side === 0) { input.focus({ preventScroll: true }); input.setSelectionRange(b, b); } else right.box.focus({ preventScroll: true }); }
  }

  const fresh = () => view.toString(36) + Date.now().toString(36) + (++state.asked).toString(36);
  function add(edit) {
    keep.set(state.text, [...mine(), { id: fresh(), ...edit }], { engine: chosen()[0], url: url.value.trim() });
    hide(true);
    ask();
    keep.write();
  }
  const correct = (a, b, label) => add({ start: a, end: b, label });
  async function confirm(a, b) {                                              // the sentence as it is marked now
    const text = state.text, [unit, point] = scales(text), s = await send("sentence", { start: point(a), end: point(b) });
    if (s.error) return warn(s.error);
    if (state.text !== text) return warn("The text has changed meanwhile: confirm its sentence again.");
    const edit = { start: unit(s.start), end: unit(s.end), label: SURE, words: s.words, entities: s.entities.map(([x, y, t]) => [unit(x), unit(y), t]) };
    const unseen = state.sides[0]?.entities.some((e) => e.hidden && e.start < edit.end && e.end > edit.start);
    if (unseen) return warn("An entity of this sentence is hidden: show all types and scores before you confirm it.");
    if (!mine().some((e) => e.label === SURE && e.start === edit.start && e.end === edit.end)) add(edit); else hide(true);
  }
  function undo() {                                                           // the last correction in this text, wherever else it was kept
    const last = mine().at(-1);
    for (const [text, { edits }] of [...keep.texts]) if (edits.some((e) => e.id === last?.id)) keep.set(text, edits.filter((e) => e.id !== last.id));
    ask();
    keep.write();
  }
  function throwAway() {
    if (!away.dataset.sure) { away.dataset.sure = keep.count(); away.textContent = `Throw away ${keep.count() === 1 ? "it" : `all ${keep.count()}`}?`; return; }
    keep.texts.clear();
    ask();
    keep.write();
  }

  function pointed() {                                                        // what the caret or the selection in the box points at
    const [a, b] = [input.selectionStart, input.selectionEnd];
    if (state.busy && state.again) return;
    const text = state.text.slice(a, b), lead = text.length - text.trimStart().length;
    if (text.trim()) {
      const [x, y] = [a + lead, a + text.trimEnd().length], e = left.layer.at(x);
      return about(0, x, y, e && !e.hidden && e.start === x && e.end === y ? e : undefined);
    }
    const e = left.layer.at(a) ?? (a ? left.layer.at(a - 1) : undefined);
    if (e && !e.hidden) about(0, e.start, e.end, e); else hide();
  }

  // ---------------------------------------------------------------- typing
  // What of the old text is gone, from its character a to its character end. The caret stands behind what has come; a selection was replaced as a whole.
  function changed(old, text, kind) {
    const caret = input.selectionEnd, history = kind.startsWith("history"), most = Math.min(old.length, text.length);
    let a = 0, z = 0;
    if (old.endsWith(text.slice(caret))) z = Math.min(text.length - caret, most);
    else while (z < most && old.at(-1 - z) === text.at(-1 - z)) z++;
    while (a < most - z && old[a] === text[a]) a++;
    let end = old.length - z;
    if (before && !history) { a = Math.min(a, before[0]); end = Math.max(end, before[1]); }
    return [a, end];
  }

  // Corrections move with an edit of their text. What replaces everything is another text, and keeps its own corrections, as the old one does.
  function move(old, text, a, end, same) {
    const kept = keep.texts.get(old), shift = text.length - old.length;
    if (!kept || old === text) return;
    const there = keep.texts.get(text);
    if (there) { if (kept.edits.every((e) => there.edits.some((f) => f.id === e.id))) keep.set(old, []); return; }
    if (!same) return;
    const by = (e, n) => (n ? { ...e, start: e.start + n, end: e.end + n, ...(e.entities && { entities: e.entities.map(([x, y, t]) => [x + n, y + n, t]) }) } : e);
    const moved = kept.edits.filter((e) => e.end <= a || e.start >= end).map((e) => by(e, e.start >= end ? shift : 0));
    if (moved.length) keep.set(text, moved, kept);
    if (moved.length === kept.edits.length) keep.set(old, []);                // else a correction's own words were edited: it stays with them as they were
  }

  function document_(text, same) {                                            // each text belongs to a document; what replaces everything begins a new one
    if (!same) doc++;
    if (docs.size > 5000) docs.delete(docs.keys().next().value);
    docs.set(hash(text), doc);
  }

  function typed(event) {
    const old = state.text, text = input.value.replace(/\r\n?/g, "\n"), kind = event?.inputType ?? "", known = docs.get(hash(text));
    const [a, end] = changed(old, text, kind), shift = text.length - old.length;
    const same = !!kind && (kind.startsWith("history") ? known === doc : !!(old.slice(0, a).trim() || old.slice(end).trim()));
    before = null;
    for (const s of state.sides) {                                            // until the answer comes, marks move with their words
      s.entities = s.entities.filter((e) => e.end <= a || e.start >= end);
      for (const e of s.entities) if (e.start >= end) { e.start += shift; e.end += shift; }
    }
    move(old, text, a, end, same);
    if (kind.startsWith("history") && known !== undefined) doc = known; else document_(text, same);
    state.text = text;
    state.own = text;                                                         // where "your own text" leads back to
    remember();
    hide();
    panes.forEach((p, i) => { p.layer.show(text, state.sides[i]?.entities ?? [], false); p.layer.tint(); });
    if (source.value && read(source.value) !== text) source.value = "";
    clearTimeout(timer);
    const wait = Math.max(WAIT, Math.min(LONGEST, (state.ms * text.length) / Math.max(1, state.read)));     // a long text is not read anew at each pause
    if (wait > 2000 && !state.busy) say("The text is long: it is read again when you pause.");
    timer = setTimeout(ask, wait);
    sides.ariaBusy = "true";
  }

  function remember() { clearTimeout(noted); noted = setTimeout(jot, 300); }  // the text itself survives a reload, a closed tab and a crash too
  function jot() {
    clearTimeout(noted);
    noted = 0;
    try {
      for (const place of places) sessionStorage.setItem(place, state.text);
      if (Object.values(examples).includes(state.text)) localStorage.removeItem(places[1]); else localStorage.setItem(places[1], state.text);
    } catch { /* no room: a correction in it is still kept, or said not to be */ }
  }
  function recalled() {
    try { return sessionStorage.getItem(places[0]) ?? sessionStorage.getItem(places[1]) ?? localStorage.getItem(places[1]); } catch { return null; }
  }

  const read = (value) => ({ file: files.get(value.slice(5)), example: examples[value.slice(8)], kept: [...keep.texts.keys()].find((t) => hash(t) === value.slice(5)) })[value.split(" ")[0]];
  function choose(value) { panel(false); const text = value ? read(value) : state.own; if (typeof text === "string") write(text); }
  function write(text) {
    input.value = text;
    state.text = input.value;
    document_(state.text, false);
    remember();
    state.sides = [];
    state.all = false;
    left.box.scrollTop = 0;
    filter(true);
    ask();
  }

  function sources() {
    const group = (label, kind, names) => (names.length ? [el("optgroup", { label }, ...names.map((n) => option(`${kind} ${n}`, n)))] : []);
    const now = source.value, short = (t) => { const line = t.replace(/\s+/g, " ").trim(); return line.length > 40 ? `${line.slice(0, 39)}…` : line; };
    const corrected = [...keep.texts].map(([t, { edits }]) => option(`kept ${hash(t)}`, `${short(t)} (${edits.length})`));
    const list = JSON.stringify([[...files.keys()], [...keep.texts].map(([t, { edits }]) => [hash(t), edits.length])]);
    if (list === listed) return drawTabs();
    listed = list;
    source.replaceChildren(option("", "your own text"), ...group("Your files", "file", [...files.keys()]), ...group("Examples", "example", Object.keys(examples)),
      ...(corrected.length ? [el("optgroup", { label: "With corrections" }, ...corrected)] : []));
    source.value = now;
    if (source.selectedIndex < 0) source.value = "";
    drawTabs();
  }

  async function open(list, encoding = "") {                                  // Python decodes: one rule for the page and the shell
    const faults = [], good = [], other = [];
    let tables = false;
    for (const f of list) {
      if (f.size > 4 * limit) { faults.push(`${f.name} is too large: it has ${count(f.size, "byte")}, the page takes ${limit.toLocaleString("en")} characters`); continue; }
      const data = await f.arrayBuffer().catch(() => null);
      if (!data) { faults.push(`${f.name} could not be read`); continue; }
      const { text, counted: found, error } = await send("decode", { text: "", edits: [], name: f.name, encoding }, [data]);
      if (error) { faults.push(error); if (!encoding && / is not UTF-8 /.test(error)) other.push(f); continue; }
      const same = (place) => (found ? JSON.stringify(counted.get(place)) === JSON.stringify(found) : files.get(place) === text);
      let place = f.name;
      for (let n = 2; (files.has(place) || counted.has(place)) && !same(place); n++) place = `${f.name} (${n})`;
      if (found) counted.set(place, found); else { files.set(place, text); good.push(place); }
      tables ||= !!found;
    }
    sources();
    if (good.length) { source.value = `file ${good[0]}`; choose(source.value); } else if (tables) summarize();
    if (!faults.length) return;
    while (state.busy) await new Promise((f) => setTimeout(f, 50));
    warn(`${faults.join(". ")}.`);
    if (other.length) alert.append(" ", button(`Read ${other.length === 1 ? other[0].name : "them"} as Windows-1252`, () => { warn(""); open(other, "cp1252"); }));
  }

  // ---------------------------------------------------------------- several files
  const SUMMARY = "Summary";
  function tab(label, chosen, open, close) {                                 // Delete or the cross closes it
    const cross = close ? [el("span", { className: "ner-cross", ariaHidden: "true", title: "Close (Delete)", onclick: (e) => { e.stopPropagation(); close(); } }, icon("M4 4l8 8M12 4l-8 8"))] : [];
    const node = el("button", { type: "button", className: "ner-tab", role: "tab", ariaSelected: String(chosen), tabIndex: chosen ? 0 : -1, onclick: open }, el("span", {}, label), ...cross);
    if (!close) return node;
    node.setAttribute("aria-keyshortcuts", "Delete");
    node.addEventListener("keydown", (e) => { if (e.key === "Delete") { e.preventDefault(); close(); } });
    return node;
  }
  function walk(e) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key], all = [...tabs.querySelectorAll("[role=tab]")], i = all.indexOf(e.target);
    if (!by || i < 0) return;
    e.preventDefault();
    all[(i + by + all.length) % all.length].focus();
  }
  function drawTabs() {
    const focused = tabs.contains(document.activeElement);
    tabs.hidden = files.size + counted.size < 1;
    const now = overview.hidden ? source.value : SUMMARY;
    tabs.replaceChildren(
      ...[...files.keys()].map((n) => tab(n, now === `file ${n}`, () => { source.value = `file ${n}`; choose(source.value); }, () => shut(n))),
      tab(SUMMARY, now === SUMMARY, summarize));
    if (![...tabs.querySelectorAll("[role=tab]")].some((t) => t.tabIndex === 0)) tabs.querySelector("[role=tab]").tabIndex = 0;
    if (focused) tabs.querySelector("[aria-selected=true]")?.focus();
    if (!files.size && !counted.size) overview.hidden = true;
  }
  function shut(name) {                                                       // its corrections stay
    const shown = source.value === `file ${name}`;
    files.delete(name);
    counted.delete(name);
    sources();
    if (!overview.hidden) return files.size + counted.size ? summarize() : choose(source.value);
    if (shown && files.size) { source.value = `file ${[...files.keys()][0]}`; choose(source.value); }
    drawTabs();
  }
  function panel(on) {                                                        // the summary instead of a text
    overview.hidden = !on;
    for (const part of [legend, tools, sides, hint, list]) part.classList.toggle("ner-behind", on);
    drawTabs();
  }
  async function summarize() {
    panel(true);
    const texts = [...files], asked = JSON.stringify([[...files.keys()], [...counted.keys()]]);
    overview.ariaBusy = "true";
    overview.replaceChildren(el("p", { className: "ner-status" }, texts.length ? "Looking for entities in all files …" : "…"));
    const { files: found, error } = texts.length ? await send("summary", { text: "", edits: [], texts: texts.map(([, t]) => [t, told(t)]) }) : { files: [] };
    if (asked !== JSON.stringify([[...files.keys()], [...counted.keys()]])) return;
    overview.ariaBusy = "false";
    if (error) { warn(error); return; }
    const rows = [...texts.map(([n], i) => [n, found[i]]), ...counted], all = new Map();
    const faults = rows.filter(([, f]) => f.error).map(([n, f]) => `${n}: ${f.error}`), good = rows.filter(([, f]) => !f.error);
    const seen = new Set(names);
    for (const [n, f] of good) for (const [label, text, c] of f.entities) {
      seen.add(label);
      const k = `${label} ${text}`, row = all.get(k) ?? { label, text, count: 0, files: new Set() };
      row.count += c;
      row.files.add(n);
      all.set(k, row);
    }
    const sum = (f, label) => f.entities.reduce((n, [l, , c]) => n + (label === undefined || l === label ? c : 0), 0), num = (n) => el("td", { className: "num" }, n ? n.toLocaleString("en") : "");
    const head = (texts, first = 1) => el("thead", {}, el("tr", {}, ...texts.map((t, i) => el("th", { scope: "col", className: i >= first ? "num" : "" }, t))));
    const labelsHere = [...seen].filter((l) => good.some(([, f]) => sum(f, l)));
    const line = (n, cells, closing) => el("tr", {}, el("th", { scope: "row" }, n, ...closing), ...cells);
    const total = good.length > 1 ? [line("All", [num(good.reduce((a, [, f]) => a + f.texts, 0)), ...labelsHere.map((l) => num(good.reduce((a, [, f]) => a + sum(f, l), 0))), num(good.reduce((a, [, f]) => a + sum(f), 0))], [])] : [];
    const away = (n) => (counted.has(n) ? [" ", el("button", { type: "button", className: "ner-icon", ariaLabel: `Close ${n}`, title: "Close", onclick: () => shut(n) }, icon("M4 4l8 8M12 4l-8 8"))] : []);
    const often = [...all.values()].sort((a, b) => b.count - a.count || a.text.localeCompare(b.text, "en"));
    const rejected = good.filter(([, f]) => f.rejected).map(([n, f]) => `${n}: ${count(f.rejected, "text or entity", "texts or entities")} could not be read`);
    overview.replaceChildren(
      el("div", { className: "ner-scroll" }, el("table", { className: "ner-table" }, el("caption", {}, "Entities in each file"), head(["File", "Texts", ...labelsHere.map((l) => `${l}`), "All"]),
        el("tbody", {}, ...good.map(([n, f]) => line(n, [num(f.texts), ...labelsHere.map((l) => num(sum(f, l))), num(sum(f))], away(n))), ...total))),
      el("div", { className: "ner-scroll" }, el("table", { className: "ner-table" }, el("caption", {}, often.length > ROWS ? `The ${ROWS} most frequent of ${count(often.length, "entity", "entities")}` : "The most frequent entities"),
        head(["Text", "Type", "Count", "Files"], 2), el("tbody", {}, ...often.slice(0, ROWS).map((r) => el("tr", {}, el("td", {}, r.text),
          el("td", {}, el("mark", { className: `ner-${start.colors[r.label] ?? "other"}` }, r.label), el("span", { className: "ner-name" }, ` ${name(r.label)}`)), num(r.count), num(r.files.size)))))));
    warn([...faults, ...rejected].join(". "));
  }

  // ---------------------------------------------------------------- searching
  const paint = globalThis.CSS?.highlights && globalThis.Highlight;
  function mark(what, ranges) { if (paint) CSS.highlights.set(`ner-${what}-${start.id}`, new Highlight(...ranges)); }
  function find(jump) {
    const wanted = query.value;
    state.hits = wanted ? [...state.text.matchAll(new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu"))].map((m) => [m.index, m.index + m[0].length]) : [];
    state.hit = -1;
    back.disabled = on.disabled = !state.hits.length;
    hits.textContent = wanted ? count(state.hits.length, "match", "matches") : "";
    mark("found", state.hits.slice(0, 5000).map((h) => left.layer.range(...h)));
    mark("now", []);
    if (jump && state.hits.length) step(1);
  }
  function step(by) {
    if (!state.hits.length) return;
    state.hit = (state.hit + by + state.hits.length) % state.hits.length;
    const h = state.hits[state.hit];
    mark("now", [left.layer.range(...h)]);
    reveal(left, ...h);
    hits.textContent = `${state.hit + 1} of ${count(state.hits.length, "match", "matches")}`;
  }

  // ---------------------------------------------------------------- taking it along
  const file = (what, texts = []) => send("file", { what, hidden: [...off], least: state.least, texts: texts.map(([t, k]) => [t, told(t), k.engine ?? chosen()[0], k.url ?? ""]) });
  async function download(what) {
    const texts = what === "corrections" ? [...keep.texts] : [], f = await file(what, texts);
    if (f.error) return warn(f.error);
    const link = el("a", { href: URL.createObjectURL(new Blob([f.content], { type: f.type })), download: f.name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    if (what !== "corrections") return;
    const left = new Map(f.left);
    texts.forEach(([text, { edits }], i) => {
      const ids = new Set(edits.map((e) => e.id));
      if (!left.has(i)) keep.set(text, keep.edits(text).map((e) => (ids.has(e.id) ? { ...e, saved: true } : e)));
    });
    keep.write();
    tell();
    warn([...left].map(([i, why]) => `“${texts[i][0].slice(0, 40)}…” is not in the file: ${why}`).join(". "));
  }
  async function copy() {
    const html = file("html").then((f) => f.content ?? ""), blob = (type) => html.then((h) => new Blob([h], { type }));
    try {
      await navigator.clipboard.write([new ClipboardItem({ "text/html": blob("text/html"), "text/plain": blob("text/plain") })]);
      copyButton.textContent = "Copied";
      setTimeout(() => { copyButton.textContent = "Copy as HTML"; }, 2000);
    } catch { warn("The browser does not let this page write to the clipboard."); }
  }

  // ---------------------------------------------------------------- what happens when
  input.addEventListener("beforeinput", () => { before = input.selectionStart < input.selectionEnd ? [input.selectionStart, input.selectionEnd] : null; });
  input.addEventListener("input", typed);
  input.addEventListener("blur", () => { if (timer) ask(); });
  input.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); pointed(); card.querySelector("button:not(.ner-icon):not(:disabled)")?.focus(); }
  });
  input.addEventListener("keyup", (e) => { if (e.shiftKey && /^(Arrow|Home|End)/.test(e.key) && input.selectionStart !== input.selectionEnd) pointed(); });
  input.addEventListener("pointerup", () => setTimeout(pointed));
  input.addEventListener("selectionchange", () => {                          // a finger drags the handles of a selection: no other event tells
    clearTimeout(settled);
    if (matchMedia("(pointer: coarse)").matches && input.selectionStart !== input.selectionEnd) settled = setTimeout(pointed, WAIT);
  });
  right.layer.node.addEventListener("click", (e) => {
    const mark = e.target.closest("mark");
    if (!mark) return hide();
    const range = document.createRange();
    range.setStart(right.layer.node, 0); range.setEndBefore(mark);
    const entity = right.layer.at(range.toString().length);
    if (entity && !entity.hidden) about(1, entity.start, entity.end, entity);
  });
  for (const [p, q] of [panes, [right, left]]) p.box.addEventListener("scroll", () => {
    place();
    if (other.value && Math.abs(q.box.scrollTop - p.box.scrollTop) > 1) q.box.scrollTop = p.box.scrollTop;
  });
  for (const kind of ["dragover", "drop"]) root.addEventListener(kind, (e) => {
    if (![...(e.dataTransfer?.types ?? [])].includes("Files")) return;
    e.preventDefault(); e.stopPropagation();
    if (kind === "drop") open([...e.dataTransfer.files]);
  });
  const resized = new ResizeObserver(() => place());
  resized.observe(sides);

  const leave = (e) => { if (keep.count((x) => !x.saved)) { e.preventDefault(); e.returnValue = ""; } };       // the browser asks
  const gone = () => noted && jot(), views = () => { tell(); if (!timer && !state.busy && JSON.stringify(mine()) !== JSON.stringify(drawn())) ask(); };
  const drawn = () => (accepted?.text === state.text ? accepted.edits : []);
  const asked = window.nerLeaving;                                          // Voila's page asks who is in it (index.html.j2): window has no capturing phase
  const unguard = () => (asked ? asked.delete(leave) : removeEventListener("beforeunload", leave));
  if (asked) asked.add(leave); else addEventListener("beforeunload", leave);
  addEventListener("pagehide", gone);

  sources();
  source.value = `example ${start.example}`;
  engine.value = start.engine;
  model.on("msg:custom", receive);
  model.on("comm_live_update", stopped);
  urlField.hidden = start.engine !== "triton";
  right.node.hidden = true;
  const old = recalled();
  document_(old ?? state.text, false);
  if (old !== null && old !== state.text) {                                   // where the person left off
    input.value = state.text = old;
    const named = Object.keys(examples).find((n) => examples[n] === old);
    source.value = named ? `example ${named}` : "";
    if (!named) state.own = old;
    filter(true);
    tell();
    ask();
  } else {
    take({ kind: "tag", ...start.found, edits: [] });
    if (mine().length) ask();
  }
  keep.views.add(views);
  return () => {
    for (const t of [timer, slow, settled]) clearTimeout(t);
    gone();
    if (keep.timer) keep.write();
    keep.views.delete(views);
    resized.disconnect();
    model.off("msg:custom", receive);
    model.off("comm_live_update", stopped);
    unguard();
    removeEventListener("pagehide", gone);
  };
}

export default { render };
