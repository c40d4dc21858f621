// What is drawn: videos, pictures of the way, the map, short messages.

export const find = (id) => document.getElementById(id);

export function make(kind, properties = {}, ...children) {
  const node = Object.assign(document.createElement(kind), properties);
  node.append(...children);
  return node;
}

export async function loadImage(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

// Videos: a figure for each title, rebuilt when the titles change.
let figures = new Map();

export function layOut(titles, width, height) {
  const same = titles.length === figures.size && titles.every((title) => figures.has(title));
  if (same) return;
  figures = new Map();
  find("videos").replaceChildren();
  for (const title of titles) {
    const canvas = make("canvas", { width, height });
    const words = title === "real" ? ["simulator", "what really happens"] : title === "none"
      ? ["no memory", "the model alone"] : [title.replace("_", "-"), "the model with this memory"];
    const caption = make("figcaption", {}, words[0], make("i", { textContent: words[1] }));
    const figure = make("figure", { className: title === "real" ? "real" : "" }, caption, canvas);
    figure.dataset.title = title;
    find("videos").append(figure);
    figures.set(title, canvas.getContext("2d", { alpha: false }));
  }
}

export function draw(frame) {
  frame.titles.forEach((title, n) => {
    const context = figures.get(title);
    if (!context) return;
    const { width, height } = context.canvas;
    context.drawImage(frame.images[n], 0, frame.k * height, width, height, 0, 0, width, height);
  });
}

// Ways: small pictures of the steps.
export function thumbnail(image, k, width, height) {
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, k * height, width, height, 0, 0, width, height);
  return canvas;
}

export function shot(node, here, fork, go) {
  const words = `${node.depth ? `chunk ${node.depth}: ${node.text || "keys"}` : "start"}${fork ? ", branches here" : ""}`;
  const button = make("button", { className: `shot${here ? " here" : ""}${fork ? " fork" : ""}`, title: words });
  button.setAttribute("aria-label", words);
  button.append(node.thumb);
  button.dataset.node = node.number;
  button.addEventListener("click", () => go(node.number));
  return button;
}

// The map: cells of a maze with their walls, the way, and where one looks.
export function drawMap(plan, places) {
  const canvas = find("map"), context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  context.clearRect(0, 0, canvas.width, canvas.height);
  const xs = places.map((p) => p[0]), ys = places.map((p) => p[1]);
  let left = Math.min(...xs) - 1, right = Math.max(...xs) + 1, low = Math.min(...ys) - 1, high = Math.max(...ys) + 1;
  if (plan) [left, right, low, high] = [0, plan.rows[0].length, 0, plan.rows.length];
  const size = Math.max(right - left, high - low, plan ? 1 : 8);
  const scale = (canvas.width - 20) / size;
  const at = (x, y) => [
    canvas.width / 2 + (x - (left + right) / 2) * scale, canvas.height / 2 - (y - (low + high) / 2) * scale,
  ];
  if (plan) drawPlan(context, plan, at, scale);
  context.lineJoin = context.lineCap = "round";
  context.strokeStyle = colour("--accent");
  context.lineWidth = 4;
  context.beginPath();
  places.forEach((place, n) => context[n ? "lineTo" : "moveTo"](...at(place[0], place[1])));
  context.stroke();
  const [x, y, heading] = places[places.length - 1], [px, py] = at(x, y), turn = (-heading * Math.PI) / 180;
  context.save();
  context.translate(px, py);
  context.rotate(turn);
  context.fillStyle = colour("--ink");
  context.strokeStyle = colour("--card");
  context.lineWidth = 3;
  context.beginPath();
  context.moveTo(17, 0);
  context.lineTo(-11, 11);
  context.lineTo(-5, 0);
  context.lineTo(-11, -11);
  context.closePath();
  context.stroke();
  context.fill();
  context.restore();
}

function drawPlan(context, plan, at, scale) {
  const open = (r, c) => plan.rows[r] && plan.rows[r][c];
  plan.rows.forEach((row, r) => row.forEach((cell, c) => {
    if (!cell) return;
    const [x, y] = at(c, r + 1);
    context.fillStyle = cell.floor;
    context.fillRect(x, y, scale + 0.5, scale + 0.5);
  }));
  const thick = Math.max(4, scale / 7);
  context.lineWidth = thick;
  context.lineCap = "butt";
  const line = (colour, a, b) => {
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(...at(...a));
    context.lineTo(...at(...b));
    context.stroke();
  };
  const inset = thick / scale / 2;
  plan.rows.forEach((row, r) => row.forEach((cell, c) => {
    if (!cell) return;
    const [across, along] = cell.walls;
    if (!open(r, c - 1)) line(across, [c + inset, r], [c + inset, r + 1]);
    if (!open(r, c + 1)) line(across, [c + 1 - inset, r], [c + 1 - inset, r + 1]);
    if (!open(r - 1, c)) line(along, [c, r + inset], [c + 1, r + inset]);
    if (!open(r + 1, c)) line(along, [c, r + 1 - inset], [c + 1, r + 1 - inset]);
  }));
}

export function toast(line, bad = false) {
  const message = make("p", { textContent: line, className: bad ? "bad" : "" });
  const box = find("toasts");
  box.append(message);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => message.remove(), bad ? 9000 : 5000);
}

export function pill(words, kind = "") {
  const state = find("state");
  if (state.textContent !== words) state.textContent = words;
  state.className = `pill ${kind}`;
}

export function fill(select, values, chosen, words = (value) => value) {
  select.replaceChildren(...values.map((value) => make("option", { value, textContent: words(value) })));
  select.value = String(chosen);
}

const KEY_NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" };
export const keyName = (code) => KEY_NAMES[code] || code.replace(/^(Key|Digit)/, "");

export function theme(next = false) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kinds = ["system", "light", "dark"];
  let kind = localStorage.getItem("theme") || "system";
  if (next) kind = kinds[(kinds.indexOf(kind) + 1) % kinds.length];
  localStorage.setItem("theme", kind);
  document.documentElement.dataset.theme = kind === "system" ? (system.matches ? "dark" : "light") : kind;
  find("theme").textContent = `Theme: ${kind}`;
  system.onchange = () => theme();
}
