"use strict";
// The recursion again, in doubles, so that it can follow a change; the tests hold its numbers to Python's.
const L = data.sizes.length - 1, B = data.B, H = 1e-5;
const range = (n) => Array.from({ length: n }, (_, k) => k);
const map = (f, ...matrices) => matrices[0].map((row, r) => row.map((_, c) => f(...matrices.map((m) => m[r][c]))));
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const transposed = (A) => A[0].map((_, c) => A.map((row) => row[c]));
const product = (A, X) => A.map((row) => X[0].map((_, c) => sum(row.map((a, k) => a * X[k][c]))));

const sigmoid = (p) => (p > 0 ? 1 / (1 + Math.exp(-p)) : Math.exp(p) / (1 + Math.exp(p)));
const softplus = (p) => Math.max(p, 0) + Math.log1p(Math.exp(-Math.abs(p)));
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, total = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(total); n++) total += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}
const below = (p) => 0.5 * (1 + erf(p * Math.SQRT1_2));
const RATE = Math.sqrt(2 / Math.PI), CUBE = 0.044715;
const bent = (p) => Math.tanh(RATE * (p + CUBE * p * p * p));
const exponentialLinear = (scale, alpha) => [
  (p) => scale * (p > 0 ? p : alpha * Math.expm1(p)), (p, q) => (p > 0 ? scale : q + scale * alpha)];
const SIGMA = { // numbers of the name -> [sigma(p), sigma'(p)]
  identity: () => [(p) => p, () => 1],
  relu: () => [(p) => Math.max(p, 0), (p, q) => (q > 0 ? 1 : 0)],
  leaky_relu: ({ slope }) => [(p) => (p > 0 ? p : slope * p), (p) => (p > 0 ? 1 : slope)],
  elu: ({ alpha }) => exponentialLinear(1, alpha),
  selu: () => exponentialLinear(1.0507009873554805, 1.6732632423543772),
  sigmoid: () => [sigmoid, (p, q) => q * (1 - q)],
  tanh: () => [Math.tanh, (p, q) => 1 - q * q],
  softplus: () => [softplus, sigmoid],
  softsign: () => [(p) => p / (1 + Math.abs(p)), (p) => 1 / (1 + Math.abs(p)) ** 2],
  gelu: () => [(p) => p * below(p), (p) => below(p) + (p * Math.exp(-0.5 * p * p)) / Math.sqrt(2 * Math.PI)],
  gelu_tanh: () => [(p) => 0.5 * p * (1 + bent(p)),
    (p) => 0.5 * (1 + bent(p)) + 0.5 * p * (1 - bent(p) ** 2) * RATE * (1 + 3 * CUBE * p * p)],
  silu: () => [(p) => p * sigmoid(p), (p) => sigmoid(p) * (1 + p * (1 - sigmoid(p)))],
  exp: () => [Math.exp, (p, q) => q],
  softmax: () => null, // acts on rows
};
const times = (y, log) => (y === 0 ? 0 : y * log);
const COST = { // [c, dc/dq] of one output; then c from p beside the natural partner
  squared_error: () => [(q, y) => 0.5 * (q - y) ** 2, (q, y) => q - y],
  absolute_error: () => [(q, y) => Math.abs(q - y), (q, y) => Math.sign(q - y)],
  huber: ({ delta }) => [
    (q, y) => Math.min(Math.abs(q - y), delta) * (Math.abs(q - y) - 0.5 * Math.min(Math.abs(q - y), delta)),
    (q, y) => Math.max(Math.min(q - y, delta), -delta)],
  quantile: ({ tau }) => [(q, y) => Math.max(tau * (y - q), (tau - 1) * (y - q)),
    (q, y) => (y > q ? -tau : y < q ? 1 - tau : 0)],
  cross_entropy: () => [(q, y) => -times(y, Math.log(q)), (q, y) => (y === 0 ? 0 : -y / q),
    (p, y, row) => -y * (p - Math.max(...row) - Math.log(sum(row.map((v) => Math.exp(v - Math.max(...row))))))],
  binary_cross_entropy: () => [(q, y) => -times(y, Math.log(q)) - times(1 - y, Math.log(1 - q)),
    (q, y) => (y === 1 ? 0 : (1 - y) / (1 - q)) - (y === 0 ? 0 : y / q), (p, y) => softplus(p) - p * y],
  poisson: () => [(q, y) => q - times(y, Math.log(q)), (q, y) => 1 - (y === 0 ? 0 : y / q),
    (p, y) => Math.exp(p) - y * p],
};
function made(spec, table) {
  const [, name, numbers] = /^(\w+)(?:\((.*)\))?$/.exec(spec || "") || [];
  if (!(name in table)) return undefined;
  const pairs = (numbers || "").split(",").map((part) => part.split("="));
  return table[name](Object.fromEntries(pairs.map(([key, value]) => [key.trim(), Number(value)])));
}
const sigma = data.sigma.map((spec) => made(spec, SIGMA)), cost = made(data.cost, COST);
const editable = !sigma.includes(undefined) && cost !== undefined;

function softmax(row) {
  const e = row.map((p) => Math.exp(p - Math.max(...row)));
  return e.map((v) => v / sum(e));
}
function forward(M) {
  for (const j of range(L + 1)) {
    if (j > 0) M[`p${j}`] = product(M[`q${j - 1}`], transposed(M[`W${j - 1}`]));
    if (j > 0 && data.bias) M[`p${j}`] = M[`p${j}`].map((row) => row.map((p, c) => p + M[`b${j - 1}`][0][c]));
    M[`q${j}`] = sigma[j] === null ? M[`p${j}`].map(softmax) : map(sigma[j][0], M[`p${j}`]);
  }
  const c = data.natural ? M[`p${L}`].map((row, r) => row.map((p, k) => cost[2](p, M.y[r][k], row)))
    : map(cost[0], M[`q${L}`], M.y);
  return sum(c.flat()) / B;
}
function run(given) { // every matrix of the page, but the differences
  const M = { ...given };
  M.C = [[forward(M)]];
  for (let j = L; j >= 0; j--) {
    const p = M[`p${j}`], q = M[`q${j}`];
    const g = M[`g${j}`] = j === L ? map((v, y) => cost[1](v, y) / B, q, M.y) : product(M[`D${j + 1}`], M[`W${j}`]);
    if (sigma[j] !== null) M[`S${j}`] = map(sigma[j][1], p, q);
    if (j === L && data.natural) {
      M[`D${j}`] = q.map((row, r) => row.map((v, c) => ((sigma[j] === null ? sum(M.y[r]) : 1) * v - M.y[r][c]) / B));
    } else if (sigma[j] === null) {
      M[`D${j}`] = q.map((row, r) => row.map((v, c) => v * (g[r][c] - sum(row.map((u, k) => u * g[r][k])))));
    } else M[`D${j}`] = map((a, s) => a * s, g, M[`S${j}`]);
  }
  for (const i of range(L)) {
    M[`dW${i}`] = product(transposed(M[`D${i + 1}`]), M[`q${i}`]);
    if (data.bias) M[`db${i}`] = [transposed(M[`D${i + 1}`]).map(sum)];
  }
  return M;
}
function differences(given, key) { // of C by each weight of W or b
  return given[key].map((row, r) => row.map((v, c) => {
    const moved = (h) => forward({ ...given, [key]: given[key].map((line, k) => (k === r ? line.with(c, v + h) : line)) });
    return (moved(H) - moved(-H)) / (2 * H);
  }));
}

// What is seen.
const $ = (id) => document.getElementById(id);
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "html") element.innerHTML = value;
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const GIVEN = Object.keys(data.matrices).filter((key) => /^(p0|W\d|b\d)$/.test(key));
const steps = data.steps, given = () => Object.fromEntries([...GIVEN, "y"].map((name) => [name, M[name]]));
let M = data.matrices, at = 0, picked = [0, 0], chosen = null;

function short(v) { // three digits
  if (!Number.isFinite(v)) return String(v);
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e4)) return v.toExponential(1);
  return String(Number(v.toPrecision(3)));
}
function colour(v, most) {
  if (!Number.isFinite(v)) return "#c9ccd0";
  const t = most > 0 ? Math.abs(v) / most : 0;
  const end = v < 0 ? [103, 169, 220] : [242, 161, 78];
  return `rgb(${end.map((e) => Math.round(255 + t * (e - 255))).join(",")})`;
}
const largest = (A) => Math.max(0, ...A.flat().map(Math.abs).filter(Number.isFinite));
const plain = (html) => make("span", { html }).textContent;
const label = (key) => data.labels[key] ?? (key.startsWith("e") ? "by differences" : key);

function heat(key, { turned = false, result = false, caption = label(key) } = {}) {
  const like = M[key] ?? M[key.slice(2)]; // differences come when they are shown, shaped like their W or b
  const A = turned ? transposed(like) : like;
  const body = A.map((row, r) => make("tr", {}, ...row.map((_, c) => {
    const place = turned ? [c, r] : [r, c];
    const name = `${plain(label(key))}, row ${place[0]}, column ${place[1]}`;
    const tag = GIVEN.includes(key) && editable ? "input" : result ? "button" : "span";
    const cell = make(tag, { "data-key": key, "data-r": place[0], "data-c": place[1] });
    if (tag === "input") Object.entries({ type: "text", inputmode: "decimal", "aria-label": name, autocomplete: "off" })
      .forEach(([attribute, value]) => cell.setAttribute(attribute, value));
    if (tag === "button") cell.title = name;
    return make("td", {}, cell);
  })));
  const table = make("table", { "aria-label": plain(caption) }, make("tbody", {}, ...body));
  return make("figure", { "data-figure": key, class: result ? "result" : "" },
    make("figcaption", { html: caption }), make("div", { class: "grid" }, table));
}

function refresh() { // numbers and colours of every cell that is there
  const { key: now } = steps[at], most = {};
  if (now[0] === "d") M[`e${now}`] ??= differences(given(), now.slice(1));
  for (const cell of document.querySelectorAll("[data-key]")) {
    const { key, r, c } = cell.dataset, v = M[key][r][c];
    cell.dataset.value = v;
    cell.parentElement.style.backgroundColor = colour(v, most[key] ??= largest(M[key]));
    if (cell.tagName !== "INPUT") cell.textContent = short(v);
    else if (cell !== document.activeElement) { cell.value = short(v); cell.removeAttribute("aria-invalid"); }
    if (cell.tagName === "BUTTON") cell.setAttribute("aria-pressed", picked[0] === Number(r) && picked[1] === Number(c));
    if (cell.tagName !== "INPUT") cell.title = `${cell.tagName === "BUTTON" ? "" : plain(label(key)) + " = "}${v}`;
  }
  $("reset").disabled = M === data.matrices;
  spell();
  draw();
}

function spell() { // how the chosen element of this step comes about
  const { key } = steps[at], [r, c] = picked, i = Number(key.slice(-1)), value = M[key][r]?.[c];
  const n = (v) => (v < 0 ? `(${short(v)})` : short(v));
  const dot = (a, b) => a.map((v, k) => `${n(v)} · ${n(b[k])}`).join(" + ");
  const kind = key.replace(/\d/, ""), over = B > 1 ? `/${B}` : "", column = (A, k) => A.map((row) => row[k]);
  let made = "";
  if (kind === "p" && i > 0) {
    made = dot(M[`q${i - 1}`][r], M[`W${i - 1}`][c]) + (data.bias ? ` + ${n(M[`b${i - 1}`][0][c])}` : "");
  } else if (kind === "q") {
    made = `${data.names[i]}(${data.names[i] === "softmax" ? M[`p${i}`][r].map(short).join(", ") : short(M[`p${i}`][r][c])})`;
    if (data.names[i] === "softmax") made += `, element ${c}`;
  } else if ((kind === "g" || (kind === "D" && data.linear)) && i < L) {
    made = dot(M[`D${i + 1}`][r], column(M[`W${i}`], c));
  } else if (kind === "D" && !(i === L && data.natural) && M[`S${i}`] && M[`g${i}`]) {
    made = `${n(M[`g${i}`][r][c])} · ${n(M[`S${i}`][r][c])}`;
  } else if (kind === "D" && i === L && data.names[i] === "softmax" && data.natural && Math.abs(sum(M.y[r]) - 1) > 1e-9) {
    made = `(${n(sum(M.y[r]))} · ${n(M[`q${L}`][r][c])} − ${n(M.y[r][c])})${over}`;
  } else if ((kind === "D" && i === L && data.natural) || (made === "" && "gD".includes(kind) && i === L && data.cost === "squared_error")) {
    made = `(${short(M[`q${L}`][r][c])} − ${n(M.y[r][c])})${over}`;
  } else if (kind === "dW") {
    made = dot(column(M[`D${i + 1}`], r), column(M[`q${i}`], c));
  } else if (kind === "db" && B > 1) {
    made = column(M[`D${i + 1}`], c).map(n).join(" + ");
  }
  const difference = key[0] === "d" ? `; by central differences ${M[`e${key}`][r][c]}` : "";
  $("spell").textContent = value === undefined ? "" : `${made ? made + " = " : ""}${value}${difference}`.replaceAll("-", "−");
}

function draw() { // nodes and weights, example 0
  const width = 420, most = Math.max(...data.sizes), height = 40 + 40 * most, step = steps[at].key;
  const x = (j) => 24 + (j * (width - 48)) / L, y = (j, k) => height / 2 + 10 + (k - (data.sizes[j] - 1) / 2) * 40;
  const now = Number(step.slice(-1)), gradient = step.startsWith("d");
  let inner = "";
  for (const i of range(L)) {
    const W = M[`W${i}`], top = largest(W) || 1;
    const used = gradient ? now === i : /^p/.test(step) ? now === i + 1 : /^[gD]/.test(step) && now === i && now < L;
    W.forEach((row, b) => row.forEach((v, a) => {
      inner += `<line x1="${x(i)}" y1="${y(i, a)}" x2="${x(i + 1)}" y2="${y(i + 1, b)}" stroke="${used ? "#1b1f24" : "#a9b0b8"}" `
        + `stroke-width="${(0.5 + (4.5 * Math.abs(v)) / top).toFixed(2)}" ${v < 0 ? 'stroke-dasharray="7 5"' : ""}/>`;
    }));
  }
  for (const j of range(L + 1)) {
    const q = M[`q${j}`][0], here = !gradient && step !== "C" && now === j;
    inner += `<text x="${x(j)}" y="14">node ${j}</text>`;
    q.forEach((v, k) => {
      inner += `<circle cx="${x(j)}" cy="${y(j, k)}" r="18" fill="${colour(v, largest(M[`q${j}`]))}" `
        + `stroke="${here ? "#1b1f24" : "#8a939d"}" stroke-width="${here ? 3.5 : 1}"/>`
        + `<text x="${x(j)}" y="${y(j, k) + 4}">${Math.abs(v) < 1 ? Number(v.toFixed(2)) : Number(v.toPrecision(2))}</text>`;
    });
  }
  $("drawing").innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Layers of ${data.sizes.join(", ")} nodes">${inner}</svg>`;
}

function show(k, focus = false) {
  at = Math.min(Math.max(k, 0), steps.length - 1);
  picked = [0, 0];
  const { key, part, tokens, formula, chain, code, shape } = steps[at];
  document.documentElement.style.setProperty("--part", `var(--${part})`);
  const sides = []; // each matrix with the signs before it, so that they wrap together
  let signs = [];
  for (const [html, name] of key === "p0" ? [] : [...tokens, ["=", key]]) {
    const [letter, turn] = name.split("'"), caption = turn === undefined ? html : `${html}<sup>T</sup>`;
    if (!(letter in M)) {
      if (html.trim()) signs.push(make("span", { html }));
    } else {
      if (name === key) signs.push(make("span", { html }));
      sides.push(make("div", {}, ...signs, name === key ? heat(key, { result: true }) : heat(letter, { turned: turn !== undefined, caption })));
      signs = [];
    }
  }
  if (key === "p0") sides.push(heat(key, { result: true }));
  if (key[0] === "d") sides.push(make("div", {}, make("span", {}, "≈"), heat(`e${key}`, { caption: "by central differences" })));
  const letters = `${label(key)} = ${formula || tokens.map(([html, name]) => html + (name.endsWith("'") ? "<sup>T</sup>" : "")).join("")}`;
  $("step").replaceChildren(
    make("p", { html: `<b>${part}</b> <span class="small">step ${at + 1} of ${steps.length}</span>` }),
    make("div", { id: "letters", html: letters }),
    make("p", { class: "small", html: [code && `<code>${code}</code>`, shape && `shape ${shape}`].filter(Boolean).join(", ") }),
    ...(chain ? [make("div", { id: "chain", html: `= ${chain}` })] : []),
    make("div", { class: "equation" }, ...sides),
    make("div", { id: "spell", role: "status" }));
  $("where").innerHTML = `<b>${part}</b>: ${label(key)}, step ${at + 1} of ${steps.length}`;
  $("first").disabled = $("back").disabled = at === 0;
  $("next").disabled = $("last").disabled = at === steps.length - 1;
  const done = new Set(steps.slice(0, at + 1).map((step) => step.key));
  for (const figure of document.querySelectorAll("#all [data-figure]")) {
    const name = figure.dataset.figure.replace(/^e/, "");
    figure.classList.toggle("now", name === key);
    figure.classList.toggle("later", !done.has(name) && name !== "y" && !GIVEN.includes(name));
  }
  const chips = [...$("track").children];
  chips.forEach((chip, n) => (n === at ? chip.setAttribute("aria-current", "step") : chip.removeAttribute("aria-current")));
  $("track").scrollLeft = chips[at].offsetLeft - $("track").clientWidth / 2;
  if (focus && (document.activeElement === document.body || document.activeElement.disabled)) $(at ? "back" : "next").focus();
  refresh();
}

function change(key, r, c, v) {
  M = run({ ...given(), [key]: M[key].map((row, k) => (k === Number(r) ? row.with(Number(c), v) : row)) });
  if (chosen) choose(chosen.key, chosen.r, chosen.c);
  refresh();
}
function choose(key, r, c) {
  const v = M[key][r][c];
  if (!chosen || chosen.key !== key || chosen.r !== r || chosen.c !== c) {
    const reach = Math.max(2, 2 * Math.abs(v));
    const slider = make("input", { type: "range", id: "range", min: -reach, max: reach, step: reach / 200 });
    slider.addEventListener("input", () => change(key, r, c, Number(slider.value)));
    $("slide").replaceChildren($("chosen"), slider);
    $("slide").hidden = false;
  }
  chosen = { key, r, c };
  $("chosen").innerHTML = `${label(key)}, row ${r}, column ${c}: ${short(v)}`;
  if (document.activeElement !== $("range")) $("range").value = v;
}

const read = (text) => (/^[-+−]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text.trim()) ? Number(text.trim().replace("−", "-")) : NaN);
document.addEventListener("input", ({ target }) => {
  if (!target.dataset.key) return;
  const v = read(target.value), { key, r, c } = target.dataset;
  if (!Number.isFinite(v)) return target.setAttribute("aria-invalid", "true");
  target.removeAttribute("aria-invalid");
  change(key, r, c, v);
});
document.addEventListener("focusin", ({ target }) => {
  if (!target.dataset.key) return;
  if (target.tagName === "INPUT") {
    const { key, r, c } = target.dataset;
    target.dataset.before = target.value = M[key][r][c];
    target.select();
    choose(key, r, c);
  } else pick(target);
});
document.addEventListener("focusout", ({ target }) => { if (target.dataset.key) setTimeout(refresh); });
function pick(cell) {
  if (cell.tagName !== "BUTTON" || !cell.dataset.key) return;
  picked = [Number(cell.dataset.r), Number(cell.dataset.c)];
  for (const other of document.querySelectorAll("button[data-key]")) other.setAttribute("aria-pressed", other === cell);
  spell();
}
for (const event of ["click", "pointerover"]) document.addEventListener(event, ({ target }) => { if (target.dataset) pick(target); });
document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.tagName === "INPUT") {
    if (!target.dataset.key) return;
    const by = { ArrowUp: 1, ArrowDown: -1 }[key];
    if (by) target.value = Number((M[target.dataset.key][target.dataset.r][target.dataset.c] + by * (event.shiftKey ? 0.01 : 0.1)).toPrecision(12));
    else if (key === "Escape") target.value = target.dataset.before;
    else return;
    event.preventDefault();
    target.dispatchEvent(new Event("input", { bubbles: true }));
    return;
  }
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: steps.length - 1 }[key];
  if (to === undefined) return;
  event.preventDefault();
  show(to, true);
});

steps.forEach(({ key, part }, k) => {
  const chip = make("button", { html: label(key), "aria-label": `Step ${k + 1}: ${plain(label(key))}`, style: `--part: var(--${part})` });
  chip.addEventListener("click", () => show(k));
  $("track").append(chip);
});
$("first").addEventListener("click", () => show(0));
$("back").addEventListener("click", () => show(at - 1, true));
$("next").addEventListener("click", () => show(at + 1, true));
$("last").addEventListener("click", () => show(steps.length - 1));
$("reset").addEventListener("click", () => { M = data.matrices; if (chosen) choose(chosen.key, chosen.r, chosen.c); refresh(); });
$("which").textContent = B > 1 ? `(example 0 of 0..${B - 1})` : "";
const row = (title, keys) => make("div", { class: "row" }, make("h3", {}, title), make("div", {}, ...keys.map((key) => heat(key))));
for (const j of range(L + 1)) {
  const nodes = [`p${j}`, `q${j}`, `D${j}`].filter((key) => key in M && !(data.linear && key[0] === "q"));
  $("all").append(row(`Node ${j}`, nodes));
  if (j < L) {
    const kinds = data.bias ? ["W", "b", "dW", "db"] : ["W", "dW"];
    $("all").append(row(`${j} to ${j + 1}`, kinds.map((kind) => kind + j)));
  }
}
$("all").append(row("Cost", ["y", "C"]));
if (!editable) {
  $("fixed").hidden = false;
  $("fixed").textContent = "The page can show these numbers but not compute them anew, as an activation or the cost is not one of gpubp's own: nothing can be changed here.";
}
show(0);
