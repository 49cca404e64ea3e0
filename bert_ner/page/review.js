// The review queue in the browser. Python keeps the queue (bert_ner/review.py); a sentence is drawn as words, and all offsets are those of its words,
// so that nothing here counts characters but `scales`.

function render({ model, el: root }) {
  const start = model.get("start"), { labels, colors, names } = start, waiting = new Map();
  const view = crypto.getRandomValues(new Uint32Array(1))[0];
  const stored = (key, value) => { try { if (value === undefined) return sessionStorage.getItem(key); sessionStorage.setItem(key, value); } catch { return null; } };
  const kept = (key, value) => { try { if (value === undefined) return localStorage.getItem(key); localStorage.setItem(key, value); } catch { return null; } };
  // a tab keeps its name through a reload; a copy of the tab, which has its storage too, is told apart by the other one that is still open
  const fresh = () => [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(36)).join("");     // randomUUID wants https
  let me = stored("bert-ner window") ?? fresh();
  const alike = new BroadcastChannel("bert-ner review");
  alike.onmessage = ({ data }) => { if (data.asks === me && data.view !== view) alike.postMessage({ taken: me, by: view, view: data.view }); else if (data.taken === me && data.view === view) other(); };
  let item = null, entities = [], chosen = null, from = null, units = null;    // the sentence, what is marked in it, the first and last chosen word
  let done = [], undone = [], asked = 0, busy = false, ended = false, answered = false, drafting = 0;

  const name = el("input", { type: "text", value: kept(`bert-ner annotator ${start.queue}`) || start.annotator || kept("bert-ner annotator") || start.user, spellcheck: false, maxLength: 60, onchange: rename });
  const bar = el("progress", { max: 1, value: 0 }), told = el("span", { className: "ner-told" });
  const head = el("div", { className: "ner-row ner-head" },
    el("label", { className: "ner-field" }, el("span", {}, "Your name"), Object.assign(name, { ariaLabel: "Your name" })),
    el("div", { className: "ner-progress" }, Object.assign(bar, { ariaLabel: "Progress" }), told));
  const place = el("p", { className: "ner-hint ner-place" });
  const before = el("span", { className: "ner-context" }), words = el("span", { className: "ner-words" }), after = el("span", { className: "ner-context" });
  const box = el("div", { className: "ner-box ner-review-box", tabIndex: 0, role: "group", ariaLabel: "Sentence" },
    el("div", { className: "ner-text ner-letters", dir: "auto" }, before, words, after));
  const chip = (label, i) => el("button", { type: "button", className: "ner-chip", title: `Label the selected words: ${names[label] ?? label}`, onclick: () => label_(label), onmousedown: (e) => e.preventDefault() },
    el("kbd", {}, i < 9 ? `${i + 1}` : "·"), el("mark", { className: `ner-${colors[label] ?? "other"}` }, label), el("span", {}, names[label] ?? label));
  const none = el("button", { type: "button", className: "ner-chip", title: "The selected words are no entity", onclick: () => label_(""), onmousedown: (e) => e.preventDefault() }, el("kbd", {}, "0"), el("span", {}, "no entity"));
  const chips = el("div", { className: "ner-legend ner-row", role: "group", ariaLabel: "Labels" }, ...labels.map(chip), none);
  const button = (text, key, f, cls = "ner-button") => el("button", { type: "button", className: cls, onclick: f }, text, " ", el("kbd", {}, key));
  const accept = button("Accept", "Enter", () => answer("accept"), "ner-button ner-main"), reject = button("Reject", "R", () => answer("reject"));
  const skip = button("Later", "L", () => answer("skip")), undo_ = button("Undo", "Ctrl+Z", undo), redo_ = button("Redo", "Ctrl+Y", redo);
  const actions = el("div", { className: "ner-row ner-actions" }, accept, reject, skip, undo_, redo_);
  const status = el("p", { className: "ner-status", role: "status" }), alert = el("p", { className: "ner-status ner-error", role: "alert", hidden: true });
  const hint = el("p", { className: "ner-hint" }, "Select words with the mouse, or with ← and → (Shift extends); press a digit to label them, 0 to remove the label. Enter saves the sentence as it is marked and shows the next one.");
  root.classList.add("ner-demo", "ner-review");
  root.append(head, place, box, chips, actions, status, alert, hint);

  // ---------------------------------------------------------------- Python
  function send(kind, more = {}) {
    const id = `${view} ${++asked}`;
    return new Promise((done) => {
      waiting.set(id, done);
      model.send({ id, kind, window: me, annotator: name.value.trim() || start.user, ...more });
    });
  }
  function receive(answer) {
    const done = waiting.get(answer.id);
    waiting.delete(answer.id);
    done?.(answer);
  }
  const warn = (text) => { alert.textContent = text; alert.hidden = !text; };
  const say = (text) => { status.textContent = text; };
  function stopped() {
    const voila = !!document.body.dataset.voila, why = "The kernel has stopped. What you have answered is saved";
    ended = true;
    say("");
    warn(voila ? `${why}.` : `${why}: run the cell again.`);
    if (voila) alert.append(" ", el("button", { type: "button", className: "ner-button", onclick: () => location.reload() }, "Reload the page"));
  }

  async function turn(kind, more) {                                           // one question at a time; what comes back says what to show. null: it failed
    if (ended) return stopped();
    if (busy) return null;
    busy = true;
    root.ariaBusy = "true";
    const late = setTimeout(() => warn("No answer yet: is the kernel still running? What was answered before is saved."), 20_000);
    try {
      const got = await send(kind, more);
      warn(got.error ?? got.note ?? "");
      if (got.error) return null;
      if ("item" in got) show(got);
      return got;
    } finally { clearTimeout(late); busy = false; root.ariaBusy = "false"; }
  }

  // ---------------------------------------------------------------- a sentence
  function show({ item: next, progress: p }) {
    item = next;
    [done, chosen] = [[], null];
    bar.max = p.sentences;
    bar.value = p.done;
    told.textContent = `${p.done.toLocaleString("en")} of ${count(p.sentences, "sentence")}: ${p.accepted.toLocaleString("en")} accepted unchanged, ${p.corrected.toLocaleString("en")} corrected, ${p.rejected.toLocaleString("en")} rejected`;
    entities = item ? item.entities.map((e) => [...e]) : [];
    for (const b of [accept, reject, skip]) b.disabled = !item;
    box.classList.toggle("ner-ended", !item);
    if (!item) {
      const left = p.sentences - p.done;
      place.textContent = "";
      before.textContent = after.textContent = "";
      words.replaceChildren(left ? `The remaining ${count(left, "sentence")} ${left === 1 ? "is" : "are"} open in another window.` : `All ${count(p.sentences, "sentence")} are answered.`);
      box.removeAttribute("aria-label");
      say(left ? "Press Enter to look again." : start.next);
      accept.disabled = !left;
      buttons();
      return;
    }
    units = scales(item.text);
    const sure = item.certainty === null ? "" : item.random ? " · drawn at random" : ` · lowest tag confidence: ${item.certainty.toFixed(2)}`;
    place.textContent = item.place + sure;
    before.textContent = item.before;
    after.textContent = item.after;
    draw();
    say(count(entities.length, "entity", "entities") + " marked.");
    box.focus({ preventScroll: true });
  }
  const cut = (a, b) => item.text.slice(units[0](a), units[0](b));
  const inside = (i) => { const [a, b] = item.words[i]; return entities.find((e) => e[0] <= a && b <= e[1]); };
  function draw() {
    const parts = [];
    let at = 0, mark = null, owner = null;
    item.words.forEach(([a, b], i) => {
      const e = inside(i), gap = cut(at, a), word = el("span", { className: "ner-word" }, cut(a, b));
      word.dataset.i = i;
      if (chosen && chosen[0] <= i && i <= chosen[1]) word.classList.add("ner-chosen");
      if (e && e === owner) mark.append(gap, word);
      else {
        parts.push(gap);
        if (e) {
          mark = el("mark", { className: `ner-${colors[e[2]] ?? "other"}` }, word);
          mark.dataset.label = e[2];
          parts.push(mark);
        } else parts.push(word);
      }
      [owner, at] = [e, b];
    });
    words.replaceChildren(...parts, item.text.slice(units[0](at)));
    buttons();
  }
  function buttons() {
    undo_.disabled = !done.length && !bar.value && !answered;
    redo_.disabled = !undone.length;
    for (const c of [...chips.children]) c.disabled = !chosen;
  }

  function choose(a, b, anchor = a) {
    chosen = a === null ? null : [Math.min(a, b), Math.max(a, b)];
    from = anchor;
    draw();
    if (!chosen) return;
    const [x, y] = [item.words[chosen[0]][0], item.words[chosen[1]][1]], e = entities.find((e) => e[0] === x && e[1] === y);
    say(`“${cut(x, y)}”: ${e ? names[e[2]] ?? e[2] : "not an entity"}.`);
  }
  function whole(i) {                                                         // an entity's words, or one word
    const e = inside(i);
    if (!e) return [i, i];
    return [item.words.findIndex((w) => w[0] === e[0]), item.words.findIndex((w) => w[1] === e[1])];
  }
  function label_(label) {
    if (!item || !chosen) return say("Select a word first.");
    const [a, b] = [item.words[chosen[0]][0], item.words[chosen[1]][1]];
    change([...entities.filter((e) => e[1] <= a || e[0] >= b), ...(label ? [[a, b, label, 1]] : [])].sort((x, y) => x[0] - y[0]));
    say(`“${cut(a, b)}”: ${label ? names[label] ?? label : "not an entity"}.`);
  }
  function change(next) {
    done.push(entities);
    undone = [];
    set(next);
  }
  function set(next) {
    entities = next;
    draw();
    clearTimeout(drafting);
    drafting = setTimeout(draft, 150);
  }
  async function draft() {                                                    // what is half done survives a reload
    clearTimeout(drafting);
    drafting = 0;
    if (!item) return;
    const { error } = await send("draft", { item: item.id, entities });
    if (error) warn(error);
  }

  // ---------------------------------------------------------------- answers
  async function answer(verdict) {
    clearTimeout(drafting);
    drafting = 0;
    if (!item) return turn("take");
    if (await turn("answer", { item: item.id, verdict, entities })) { undone = []; answered = true; buttons(); }
  }
  async function undo() {                                                     // a label, or else the last answer, whose sentence comes back
    if (busy) return;
    if (done.length) {
      undone.push({ entities, item: item.id });
      return set(done.pop());
    }
    const got = await turn("back");
    if (got?.item) { undone.push({ entities, item: item.id, answered: got.item.verdict }); buttons(); }
  }
  async function redo() {
    const last = undone.pop();
    if (!last) return;
    if (last.item !== item?.id) undone = [];
    else if (!last.answered) { done.push(entities); set(last.entities); }
    else if (!(await turn("answer", { item: last.item, verdict: last.answered, entities: last.entities }))) undone = [];
    buttons();
  }
  async function rename() {                                                   // the marks stay, where the sentence does
    name.value = name.value.trim() || start.annotator || start.user;
    for (const key of ["bert-ner annotator", `bert-ner annotator ${start.queue}`]) kept(key, name.value);
    const [was, marked, steps] = [item?.id, entities, done];
    undone = [];
    await turn("take");
    if (item && item.id === was && JSON.stringify(marked) !== JSON.stringify(entities)) { set(marked); done = steps; buttons(); }
    box.focus({ preventScroll: true });
  }

  // ---------------------------------------------------------------- mouse and keys
  const wordAt = (e) => { const w = e.target.closest?.(".ner-word"); return w ? +w.dataset.i : null; };
  let dragging = null;
  words.addEventListener("pointerdown", (e) => {
    const i = wordAt(e);
    if (i === null || e.button) return;
    e.preventDefault();
    box.focus({ preventScroll: true });
    if (e.shiftKey && chosen) return choose(from, i, from);
    dragging = i;
    choose(...whole(i), i);
  });
  words.addEventListener("pointermove", (e) => {
    if (dragging === null) return;
    const w = document.elementFromPoint(e.clientX, e.clientY)?.closest(".ner-word");
    if (w && root.contains(w) && +w.dataset.i !== dragging) choose(dragging, +w.dataset.i, dragging);
  });
  const drop = () => { dragging = null; };
  addEventListener("pointerup", drop);
  box.addEventListener("keydown", (e) => {
    const latin = /^[\x20-\x7e]$/.test(e.key) || e.key.length > 1, key = (latin ? e.key : e.code.replace(/^(Key|Digit)/, "")).toLowerCase(), control = e.ctrlKey || e.metaKey;
    const act = (f) => { e.preventDefault(); e.stopPropagation(); f(); };
    if (control && key === "z") return act(e.shiftKey ? redo : undo);
    if (control && key === "y") return act(redo);
    if (control || e.altKey) return;
    if (e.repeat && /^(enter|r|l)$/.test(key)) return e.preventDefault();   // a key that is held down answers once
    if (key === "enter") return act(() => answer("accept"));
    if (!item) return;
    if (key === "r") return act(() => answer("reject"));
    if (key === "l") return act(() => answer("skip"));
    if (key === "escape") return act(() => choose(null));
    if (key === "0" || key === "delete" || key === "backspace") return act(() => label_(""));
    if (/^[1-9]$/.test(key)) return labels[key - 1] === undefined ? undefined : act(() => label_(labels[key - 1]));
    const by = { arrowleft: -1, arrowright: 1 }[key], last = item.words.length - 1;
    if (!by) return;
    act(() => {
      if (!chosen) return choose(...whole(by > 0 ? 0 : last));
      if (e.shiftKey) {                                                       // the end that is not the anchor moves
        const end = from === chosen[0] ? chosen[1] : chosen[0], next = Math.max(0, Math.min(last, end + by));
        return choose(from, next, from);
      }
      const next = Math.max(0, Math.min(last, (by > 0 ? chosen[1] : chosen[0]) + by));
      choose(...whole(next), whole(next)[0]);
    });
  });

  function other() { me = fresh(); undone = []; stored("bert-ner window", me); turn("take"); }
  const gone = () => { if (drafting) draft(); };
  addEventListener("pagehide", gone);
  model.on("msg:custom", receive);
  model.on("comm_live_update", stopped);
  stored("bert-ner window", me);
  alike.postMessage({ asks: me, view });
  setTimeout(() => turn("take"), 100);                                        // time for the other tab to speak up
  return () => {
    gone();
    alike.close();
    removeEventListener("pagehide", gone);
    removeEventListener("pointerup", drop);
    model.off("msg:custom", receive);
    model.off("comm_live_update", stopped);
  };
}

export default { render };
