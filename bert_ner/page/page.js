// The page in the browser. Python tags and corrects (bert_ner/demo.py); everything here is drawn from text and offsets, as text and never as HTML.
// One box: a textarea whose own letters are transparent lies over a layer that shows the same letters with their marks. So typing, selecting,
// undoing and copying are the browser's own, and a mark can move no letter.

const WAIT = 250;        // milliseconds without a key before the text is sent
const ROWS = 200;        // rows of the table that are drawn at first
const SLOW = 20_000;     // milliseconds after which the status says that it takes long

function el(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (k in e && k !== "list") e[k] = v;
    else e.setAttribute(k, v);
  }
  e.append(...children);
  return e;
}

const icon = (path) => {
  const s = document.createElementNS("http://www.w3.org/2000/svg", "svg"), p = document.createElementNS(s.namespaceURI, "path");
  s.setAttribute("viewBox", "0 0 16 16"); s.setAttribute("aria-hidden", "true"); p.setAttribute("d", path);
  s.append(p);
  return s;
};

const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// Python counts code points, JavaScript UTF-16 units: [to unit, to point]
function scales(text) {
  if (!/[\ud800-\udbff]/.test(text)) return [(i) => i, (i) => i];
  const units = [], points = new Uint32Array(text.length + 1);
  for (let u = 0; u < text.length; u++) {
    points[u] = units.length;
    units.push(u);
    if (text.codePointAt(u) > 0xffff) points[++u] = units.length;
  }
  units.push(text.length);
  points[text.length] = units.length - 1;
  return [(i) => units[i], (i) => points[i]];
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
    const first = starts[head] ?? at, blocks = [];
    let next = entities.findIndex((e) => e.end > first);
    if (next < 0) next = entities.length;
    for (let i = head; i < lines.length - tail; i++) {
      const block = el("div", { className: "ner-line" }), end = starts[i] + lines[i].length;
      let from = starts[i];
      while (next < entities.length && entities[next].start < end) {
        const e = entities[next], a = Math.max(e.start, starts[i]), b = Math.min(e.end, end);
        if (a > from) block.append(text.slice(from, a));
        const mark = el("mark", { className: `ner-${e.colour}` }, text.slice(a, b));
        if (a === e.start) mark.dataset.label = e.label;
        mark.entity = e;
        block.append(mark);
        from = b;
        if (e.end > end) break;
        next++;
      }
      if (from < end) block.append(text.slice(from, end));
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

  at(offset) {                                                                // the entity at a character
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
  const files = new Map(), off = new Set(), waiting = new Map(), edits = new Map();
  const state = { text: start.text, least: 0, sides: [], asked: 0, busy: false, again: false, sort: "start", up: true, all: false, hits: [], hit: -1 };
  const view = crypto.getRandomValues(new Uint32Array(1))[0];               // two views of one widget get each other's answers
  let timer = 0, slow = 0, settled = 0;

  // ---------------------------------------------------------------- the parts of the page
  const field = (label, control, cls = "") => Object.assign(control, { ariaLabel: label }) && el("label", { className: `ner-field ${cls}` }, el("span", {}, label), control);
  const option = (value, text) => el("option", { value }, text);
  const source = el("select", { onchange: () => choose(source.value) });
  const engine = el("select", { onchange: ask }, ...engines.map(([k, v]) => option(k, v)));
  const other = el("select", { onchange: ask }, option("", "nothing"), ...engines.map(([k, v]) => option(k, v)));
  const url = el("input", { type: "text", value: start.url, onchange: ask, spellcheck: false });
  const urlField = field("Triton's address", url);
  const upload = el("input", { type: "file", multiple: true, accept: ".txt,.text,.md,text/plain", className: "ner-hidden", tabIndex: -1, ariaLabel: "Text files",
    onchange: () => { open([...upload.files]); upload.value = ""; } });
  const head = el("div", { className: "ner-row ner-head" }, field("Text from", source), field("Engine", engine), field("Compare with", other), urlField,
    el("button", { type: "button", className: "ner-button", onclick: () => upload.click() }, "Open files…"), upload);

  const chips = names.map((t) => el("button", { type: "button", className: "ner-chip", ariaPressed: "true", title: `Show or hide: ${name(t)}`,
    onclick: () => { off.has(t) ? off.delete(t) : off.add(t); filter(); } },
    el("mark", { className: `ner-${start.colours[t] ?? "other"}` }, t), el("span", {}, name(t)), el("b", {}, "0")));
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
  const hint = el("p", { className: "ner-hint" }, "Click an entity, or select any text, for details and to correct it; from the keyboard, press Ctrl+Enter.");

  const button = (text, f, cls = "ner-button") => el("button", { type: "button", className: cls, onclick: f }, text);
  const copyButton = button("Copy as HTML", copy);
  const downloads = el("div", { className: "ner-row ner-downloads", role: "group", ariaLabel: "Take it with you" }, copyButton,
    ...[["json", "JSON"], ["csv", "CSV"], ["conll", "CoNLL"]].map(([kind, label]) => button(`Download ${label}`, () => download(kind))));
  const changes = el("span", { className: "ner-changes", role: "status" });
  const fixes = el("div", { className: "ner-row ner-fixes", hidden: true }, changes, button("Undo", undo),
    Object.assign(button("Save corrections", () => download("corrections"), "ner-button ner-main"), { title: "A CSV in the corpus's own format, ready for training" }));

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
::highlight(ner-chosen-${start.id}) { text-decoration: underline 2px }`);
  root.classList.add("ner-demo");
  root.dataset.lmSuppressShortcuts = "true";                                 // JupyterLab's one-letter commands stay out
  root.addEventListener("keydown", (e) => { if (e.key === "Escape" && !card.hidden) { e.preventDefault(); hide(true); } e.stopPropagation(); });
  root.append(sheet, head, legend, tools, sides, hint, alert, el("div", { className: "ner-row ner-under" }, status, downloads), fixes, list);

  // ---------------------------------------------------------------- asking Python
  function send(kind, more = {}) {
    const id = `${view} ${++state.asked}`;
    return new Promise((done) => {
      waiting.set(id, done);
      model.send({ id, kind, text: state.text, edits: told(state.text), engines: chosen(), url: url.value.trim(), ...more });
    });
  }
  const receive = (m) => { const done = waiting.get(m.id); waiting.delete(m.id); done?.(m); };
  const told = (text) => { const [, point] = scales(text); return (edits.get(text) ?? []).map((e) => [point(e.start), point(e.end), e.label]); };
  const chosen = () => [engine.value, ...(other.value ? [other.value] : [])];

  async function ask() {
    clearTimeout(timer);
    timer = 0;
    urlField.hidden = !chosen().includes("triton");
    right.node.hidden = !other.value;
    sides.classList.toggle("ner-two", !!other.value);
    if (state.busy) { state.again = true; return; }                          // one at a time; the last one wins
    state.busy = true;
    sides.ariaBusy = "true";
    say("Looking for entities …");
    slow = setTimeout(() => say("Still looking: the text is long, or the kernel has stopped"), SLOW);
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
    const errors = [answer.error, ...(answer.sides ?? []).map((s) => s.error)].filter(Boolean);
    if (answer.sides) state.sides = answer.sides.map((s) => ({ ...s, entities: s.entities.map(([a, b, label, score, by, also]) =>
      ({ start: unit(a), end: unit(b), from: a, to: b, label, score, by, also, colour: start.colours[label] ?? "other" })) }));
    else if (answer.kind === "tag") state.sides = [];
    warn([...new Set(errors)].map((e) => e[0].toUpperCase() + e.slice(1)).join(". "));
    hide();
    filter(true);
    say(summary());
    const here = (edits.get(state.text) ?? []).length, all = [...edits.values()].reduce((n, e) => n + e.length, 0);
    fixes.hidden = !all;
    fixes.querySelector("button").disabled = !here;
    changes.textContent = count(all, "correction") + (here < all ? `, ${here} in this text` : "");
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
      el("td", {}, el("mark", { className: `ner-${start.colours[r.label] ?? "other"}` }, r.label), el("span", { className: "ner-name" }, ` ${name(r.label)}`)),
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
  function about(side, a, b, entity) {
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
    const close = el("button", { type: "button", className: "ner-icon", ariaLabel: "Close", title: "Close (Escape)", onclick: () => hide(true) }, icon("M4 4l8 8M12 4l-8 8"));
    const fix = (t, text) => el("button", { type: "button", className: "ner-fix", disabled: entity?.label === t, onclick: () => correct(a, b, t) }, ...text);
    card.replaceChildren(
      el("div", { className: "ner-card-head" }, ...(entity ? [el("mark", { className: `ner-${entity.colour}` }, entity.label)] : []),
        el("b", {}, entity ? name(entity.label) : "Your selection"), close),
      el("p", { className: "ner-quote" }, short), ...facts,
      soft(entity ? "Correct it to" : "Mark it as"),
      el("div", { className: "ner-fixlist" }, ...names.map((t) => fix(t, [el("mark", { className: `ner-${start.colours[t]}` }, t), ` ${name(t)}`])), fix("", ["no entity"])));
    card.ariaLabel = entity ? `${short}: ${name(entity.label)}` : `Selection: ${short}`;
    card.hidden = false;
    shown = { side, a, b };
    mark("chosen", [panes[side].layer.range(a, b)]);
    place();
  }

  function place() {
    if (!shown) return;
    const p = panes[shown.side], r = p.layer.range(shown.a, shown.b).getClientRects()[0], b = p.box.getBoundingClientRect(), s = sides.getBoundingClientRect();
    if (!r || r.bottom < b.top || r.top > b.bottom) return hide();
    const width = card.offsetWidth;
    card.style.left = `${Math.max(0, Math.min(r.left - s.left - 12, s.width - width))}px`;
    const below = r.bottom + card.offsetHeight + 12 < innerHeight || r.top - card.offsetHeight < 40;
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

  async function correct(a, b, label) {
    edits.set(state.text, [...(edits.get(state.text) ?? []), { start: a, end: b, label }]);
    hide(true);
    await ask();
  }
  function undo() {
    edits.get(state.text)?.pop();
    ask();
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
  function typed() {
    const old = state.text, text = input.value.replace(/\r\n?/g, "\n");
    let a = 0, z = 0;
    const most = Math.min(old.length, text.length);
    while (a < most && old[a] === text[a]) a++;
    while (z < most - a && old.at(-1 - z) === text.at(-1 - z)) z++;
    const shift = text.length - old.length, end = old.length - z;
    for (const s of state.sides) {                                            // until the answer comes, marks move with their words
      s.entities = s.entities.filter((e) => e.end <= a || e.start >= end);
      for (const e of s.entities) if (e.start >= end) { e.start += shift; e.end += shift; }
    }
    const moved = (edits.get(old) ?? []).filter((e) => e.end <= a || e.start >= end).map((e) => (e.start >= end ? { ...e, start: e.start + shift, end: e.end + shift } : e));
    edits.delete(old);
    if (moved.length) edits.set(text, moved);
    state.text = text;
    hide();
    panes.forEach((p, i) => { p.layer.show(text, state.sides[i]?.entities ?? [], false); p.layer.tint(); });
    if (source.value && read(source.value) !== text) source.value = "";
    clearTimeout(timer);
    timer = setTimeout(ask, WAIT);
    sides.ariaBusy = "true";
  }

  const read = (value) => (value.startsWith("file ") ? files.get(value.slice(5)) : examples[value.slice(8)]);
  function choose(value) { if (value) { write(read(value)); } }
  function write(text) {
    input.value = text;
    state.text = input.value;
    state.sides = [];
    state.all = false;
    left.box.scrollTop = 0;
    filter(true);
    ask();
  }

  function sources() {
    const group = (label, kind, names) => (names.length ? [el("optgroup", { label }, ...names.map((n) => option(`${kind} ${n}`, n)))] : []);
    const now = source.value;
    source.replaceChildren(option("", "your own text"), ...group("Your files", "file", [...files.keys()]), ...group("Examples", "example", Object.keys(examples)));
    source.value = now;
  }

  async function open(list) {
    const faults = [], good = [];
    for (const f of list) {
      if (f.size > 4 * limit) { faults.push(`${f.name} is too large: it has ${count(f.size, "byte")}, the page takes ${limit.toLocaleString("en")} characters.`); continue; }
      try {
        const text = new TextDecoder("utf-8", { fatal: true }).decode(await f.arrayBuffer()).replace(/\r\n?/g, "\n");
        if (/[\0-\x08\x0e-\x1a]/.test(text)) throw new TypeError();
        if (text.length > limit) { faults.push(`${f.name} is too large: the page takes ${limit.toLocaleString("en")} characters.`); continue; }
        files.set(f.name, text);
        good.push(f.name);
      } catch (e) { faults.push(e instanceof TypeError ? `${f.name} is not text in UTF-8: save it as plain text.` : `${f.name} could not be read.`); }
    }
    sources();
    if (good.length) { source.value = `file ${good[0]}`; choose(source.value); }
    if (faults.length) { while (state.busy) await new Promise((f) => setTimeout(f, 50)); warn(faults.join(" ")); }
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
  const file = (what) => send("file", { what, hidden: [...off], least: state.least, texts: [...edits.keys()].filter((t) => edits.get(t).length).map((t) => [t, told(t)]) });
  async function download(what) {
    const f = await file(what);
    if (f.error) return warn(f.error);
    const link = el("a", { href: URL.createObjectURL(new Blob([f.content], { type: f.type })), download: f.name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
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

  sources();
  source.value = `example ${start.example}`;
  engine.value = start.engine;
  model.on("msg:custom", receive);
  urlField.hidden = start.engine !== "triton";
  right.node.hidden = true;
  take({ kind: "tag", ...start.found });
  return () => { for (const t of [timer, slow, settled]) clearTimeout(t); resized.disconnect(); model.off("msg:custom", receive); };
}

export default { render };
