// What the page and the review queue share; put before either by bert_ner/demo.py and bert_ner/review_widget.py.

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

