// The player: keys that are held become chunks of video, the next one asked for shortly before the last one ends.

import { ask, Fault, leave, onLost, status } from "./link.js";
import * as view from "./view.js";

const { find, make } = view;
const MARGIN = 60; // ms that a chunk is asked for before it is needed, beyond the time it takes
const SHOTS = 48;

const app = {
  session: "", about: null, run: null, epoch: 0, request: 1 + Math.floor(Math.random() * 2 ** 30), asking: false, paused: false, single: 0,
  tip: 0, shown: 0, nodes: new Map(), queue: [], next: 0, held: [], tapped: [], said: [], pressed: 0,
  compute: 150, drawn: [], lost: false, busy: 0, looking: 0,
};
window.player = app; // for whoever looks at it from the console, and for tests

// ---- steps

const rate = () => Number(find("speed").value) * app.about.fps || 120;

function wanted() {
  if (app.single > 0 || app.said.length) return true;
  return !app.paused && (app.held.length > 0 || app.tapped.length > 0 || find("run-on").checked);
}

async function pump() {
  if (!app.session || app.asking || app.busy || !wanted()) return;
  if ((app.queue.length / rate()) * 1000 > 1.25 * app.compute + MARGIN) return;
  const epoch = app.epoch, body = { session: app.session, parent: app.tip, request: app.request++ };
  const pressed = app.pressed;
  if (app.said.length) body.text = app.said.shift();
  else body.keys = [...new Set([...app.tapped, ...app.held])].slice(0, 16);
  app.tapped = [];
  app.pressed = 0;
  app.single = Math.max(0, app.single - 1);
  app.asking = true;
  const since = performance.now();
  try {
    const chunk = await ask("step", body);
    app.compute += 0.3 * (performance.now() - since - app.compute);
    await take(chunk, epoch, pressed);
  } catch (error) {
    await fault(error);
  } finally {
    app.asking = false;
    pump();
  }
}

async function take(chunk, epoch, pressed = 0) {
  const images = await Promise.all(chunk.videos.map(view.loadImage));
  if (epoch !== app.epoch) return;
  const node = {
    number: chunk.node, parent: chunk.parent, depth: chunk.depth, text: chunk.text, place: chunk.place, children: 0, seen: false,
    thumb: view.thumbnail(images[0], chunk.count - 1, app.about.width, app.about.height),
    seconds: chunk.seconds, titles: chunk.titles, lines: chunk.lines,
  };
  app.nodes.set(node.number, node);
  for (const gone of chunk.gone) if (app.nodes.has(gone)) Object.assign(app.nodes.get(gone), { gone: true, thumb: null });
  app.tip = node.number;
  for (let k = 0; k < chunk.count; k++) {
    app.queue.push({ images, k, titles: chunk.titles, node, last: k === chunk.count - 1, pressed: k ? 0 : pressed });
  }
  if (chunk.note) view.toast(chunk.note, true);
}

function tick(now) {
  requestAnimationFrame(tick);
  if (!app.about) return;
  if (app.queue.length && now >= app.next) {
    show(app.queue.shift(), now);
    app.next = Math.max(now - 4, app.next) + 1000 / rate();
  }
  pump();
  measure(now);
}

function show(frame, now) {
  view.layOut(frame.titles, app.about.width, app.about.height);
  view.draw(frame);
  app.drawn.push(now);
  if (frame.k === 0) {
    find("caption").textContent = frame.node.depth ? frame.node.text || " " : "start";
    find("depth").textContent = frame.node.depth;
    if (frame.node.depth) find("compute").textContent = Math.round(frame.node.seconds * 1000);
    if (frame.pressed) find("latency").textContent = Math.round(performance.now() - frame.pressed);
    app.shown = frame.node.number;
    if (!frame.node.seen && app.nodes.has(frame.node.parent)) app.nodes.get(frame.node.parent).children += 1;
    frame.node.seen = true;
  }
  if (frame.last) {
    ways();
    map();
  }
}

function measure(now) {
  app.drawn = app.drawn.filter((time) => now - time < 2000);
  const moving = app.queue.length > 0 || app.asking;
  if (moving && app.drawn.length > 3) {
    const seconds = (app.drawn[app.drawn.length - 1] - app.drawn[0]) / 1000;
    if (seconds > 0.4) find("fps").textContent = ((app.drawn.length - 1) / seconds).toFixed(1);
  }
  if (app.lost) view.pill("lost", "bad");
  else if (app.busy) return;
  else if (app.paused) view.pill("paused", "warn");
  else if (moving) view.pill("playing", "good");
  else view.pill("waiting for a key");
}

// ---- the way and the map

function pathTo(number) {
  const path = [];
  for (let node = app.nodes.get(number); node; node = app.nodes.get(node.parent)) path.unshift(node);
  return path;
}

function ways() {
  const path = pathTo(app.shown), on = new Set(path.map((node) => node.number));
  const kept = path.filter((node) => !node.gone && node.thumb);
  const shown = kept.length > SHOTS ? [kept[0], ...kept.slice(1 - SHOTS)] : kept;
  find("strip").replaceChildren(
    ...shown.map((node) => view.shot(node, node.number === app.shown, node.children > 1, go)),
  );
  find("strip").scrollLeft = find("strip").scrollWidth;
  const others = [...app.nodes.values()].filter((n) => n.seen && n.thumb && !n.children && !on.has(n.number));
  find("others-box").hidden = !others.length;
  find("others").replaceChildren(...others.slice(-SHOTS).map((node) => view.shot(node, false, false, go)));
  find("undo").disabled = path.length < 2;
}

function map() {
  const places = pathTo(app.shown).map((node) => node.place).filter(Boolean);
  find("map-box").hidden = !places.length;
  if (!places.length) return;
  view.drawMap(app.run.plan, places);
  find("map-kind").textContent = app.run.plan || app.run.has_real ? "of the simulator" : "by the commands alone";
}

async function go(number) {
  const node = app.nodes.get(number);
  if (!node || node.gone) return view.toast("The state of that step is no longer kept.", true);
  still();
  app.tip = app.shown = number;
  app.looking += 1;
  try {
    const epoch = app.epoch, chunk = await ask("look", { session: app.session, node: number });
    if (epoch !== app.epoch) return;
    const images = await Promise.all(chunk.videos.map(view.loadImage));
    if (epoch !== app.epoch) return;
    view.layOut(chunk.titles, app.about.width, app.about.height);
    view.draw({ images, k: chunk.count - 1, titles: chunk.titles });
    node.thumb = node.thumb || view.thumbnail(images[0], chunk.count - 1, app.about.width, app.about.height);
    node.place = node.place || chunk.place;
    find("caption").textContent = node.depth ? node.text || " " : "start";
    find("depth").textContent = node.depth;
    ways();
    map();
  } catch (error) {
    await fault(error);
  } finally {
    app.looking -= 1;
  }
}

function still() {
  app.epoch += 1;
  app.queue = [];
  app.said = [];
  app.tapped = [];
  app.single = 0;
}

const undo = () => {
  const node = app.nodes.get(app.shown);
  if (node && app.nodes.has(node.parent)) go(node.parent);
};

// ---- runs and choices

async function busily(words, work) {
  app.busy += 1;
  view.pill(words, "warn");
  let polling = false;
  const poll = setInterval(async () => {
    if (polling) return;
    polling = true;
    const now = await status();
    polling = false;
    if (app.busy && now.doing) view.pill(`${now.doing} (${now.seconds} s)`, "warn");
  }, 500);
  try {
    return await work();
  } catch (error) {
    await fault(error);
    return null;
  } finally {
    clearInterval(poll);
    app.busy -= 1;
  }
}

async function begun(answer) {
  still();
  app.run = answer.run;
  app.nodes.clear();
  find("title").textContent = answer.run.title;
  find("seed").value = answer.run.seed;
  if (answer.run.place !== null) find("place").value = answer.run.place;
  find("real-row").hidden = !answer.run.has_real;
  for (const { node, parent, depth, text } of answer.run.nodes) {
    if (node !== answer.node) app.nodes.set(node, { number: node, parent, depth, text, children: 1, seen: true });
  }
  await take({ ...answer, gone: [] }, app.epoch);
  app.next = 0;
}

const begin = (body) => busily("starting", async () => {
  const seed = Math.max(0, Math.trunc(Number(find("seed").value)) || 0);
  const answer = await ask("begin", { session: app.session, seed, ...body });
  await begun(answer);
});

const choose = () => busily("changing", async () => {
  const before = app.run.choice;
  const beside = find("beside").value === find("memory").value ? "" : find("beside").value;
  const given = {
    memory: find("memory").value, beside, steps: Number(find("steps").value), guidance: Number(find("guidance").value),
    real: find("real").checked,
  };
  try {
    app.run.choice = (await ask("choose", { session: app.session, ...given })).run.choice;
  } finally {
    if (app.run.choice === before) show_choice();
  }
  show_choice();
  view.toast("From the next chunk on.");
});

function show_choice() {
  const { memory, beside, steps, guidance, real } = app.run.choice;
  Object.assign(find("memory"), { value: memory });
  Object.assign(find("beside"), { value: beside });
  Object.assign(find("steps"), { value: String(steps) });
  Object.assign(find("guidance"), { value: String(guidance) });
  find("real").checked = real;
}

const record = () => busily("saving", async () => {
  const saved = await ask("record", { session: app.session, node: app.shown });
  const name = (path) => path.split("/").pop();
  const film = saved.files.find((path) => name(path) === "side_by_side.mp4") || saved.files.find((path) => path.endsWith(".mp4"));
  const video = make("video", { src: film, controls: true, loop: true, muted: true, playsInline: true });
  const links = make("p");
  for (const path of saved.files) links.append(make("a", { href: path, download: `${saved.number}_${name(path)}`, textContent: name(path) }));
  const box = make("div", {}, video, links);
  if (saved.command) box.append(make("p", { className: "soft", textContent: "The same frames again:" }), make("code", { textContent: saved.command }));
  if (saved.note) box.append(make("p", { className: "soft", textContent: saved.note }));
  find("saved").prepend(box);
  while (find("saved").children.length > 4) find("saved").lastChild.remove();
  find("saved-box").hidden = false;
  view.toast(`Saved in ${saved.folder}`);
});

async function upload(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  await begin({ from: "picture", picture: btoa(text) });
}

async function fault(error) {
  if (!(error instanceof Fault)) throw error;
  if (error.status === 410) return reopen(error.message);
  app.said = [];
  app.tapped = [];
  app.held = [];
  app.single = 0;
  keysDown();
  view.toast(error.message, true);
}

// ---- keys

function keysDown() {
  for (const button of find("keys").children) {
    const codes = button.dataset.codes.split(" ");
    button.classList.toggle("held", codes.some((code) => app.held.includes(code)));
  }
}

const bound = (code) => app.about && app.about.keys.some((key) => key.codes.includes(code));

function press(code) {
  if (app.held.includes(code)) return;
  app.held.push(code);
  app.tapped.push(code);
  app.pressed = app.pressed || performance.now();
  keysDown();
  pump();
}

function release(code) {
  app.held = app.held.filter((other) => other !== code);
  keysDown();
}

function pause() {
  app.paused = !app.paused;
  find("pause").classList.toggle("on", app.paused);
}

const single = () => {
  app.single += 1;
  pump();
};

function cycle(id) {
  const select = find(id);
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  choose();
}

const ACTIONS = {
  Space: ["Space", "pause", pause], Period: [".", "one chunk", single], Backspace: ["⌫", "back by one chunk", undo],
  KeyX: ["X", "back to the start", () => begin({ from: "again" })], KeyV: ["V", "save the video", record],
  KeyM: ["M", "the next memory", () => cycle("memory")], KeyB: ["B", "the next memory beside it", () => cycle("beside")],
  Enter: ["Enter", "type a command", () => find("text").focus()],
};

function listen() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !app.session) return;
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.code === "Escape" && typing) event.target.blur();
    if (typing || find("keys-help").open) return;
    const onButton = event.target.matches("button, video, a") && ["Space", "Enter"].includes(event.code);
    if (bound(event.code)) {
      event.preventDefault();
      press(event.code);
    } else if (event.key === "?") find("keys-help").showModal();
    else if (ACTIONS[event.code] && !event.repeat && !onButton) {
      event.preventDefault();
      ACTIONS[event.code][2]();
    }
  });
  addEventListener("keyup", (event) => release(event.code));
  addEventListener("blur", () => [...app.held].forEach(release));
  addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur()); // keys are for driving
  addEventListener("pagehide", () => app.session && leave(app.session));
  find("say").addEventListener("submit", (event) => {
    event.preventDefault();
    if (find("text").value.trim()) app.said.push(find("text").value);
    find("text").select();
    app.pressed = performance.now();
    pump();
  });
  const click = (id, action) => find(id).addEventListener("click", action);
  click("pause", pause);
  click("single", single);
  click("undo", undo);
  click("again", () => begin({ from: "again" }));
  click("record", record);
  click("theme", () => (view.theme(true), app.about && map()));
  click("help", () => find("keys-help").showModal());
  click("go-place", () => begin({ from: "place", place: Number(find("place").value) }));
  click("next-place", () => {
    find("place").value = Number(find("place").value) + 1;
    begin({ from: "place", place: Number(find("place").value) });
  });
  click("go-episode", () => begin({ from: "episode", episode: Number(find("episode").value), frame: Number(find("frame").value) }));
  for (const id of ["memory", "beside", "steps", "guidance", "real"]) find(id).addEventListener("change", choose);
  find("seed").addEventListener("change", () => begin({ from: "again" }));
  find("file").addEventListener("change", (event) => event.target.files[0] && upload(event.target.files[0]));
  const drop = find("drop");
  for (const name of ["dragenter", "dragover"]) {
    addEventListener(name, (event) => (event.preventDefault(), drop.classList.add("over")));
  }
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
  });
}

// ---- a session

function furnish(about) {
  app.about = about;
  find("model").textContent = about.model;
  const keys = find("keys");
  keys.replaceChildren();
  const walker = about.keys.length > 0 && about.keys.every((key) => /^Key[QWEASD]$/.test(key.codes[0]));
  keys.className = walker ? "" : "list";
  keys.hidden = !about.keys.length;
  for (const key of about.keys) {
    const button = make("button", { type: "button", tabIndex: -1 }, make("b", { textContent: key.codes.map(view.keyName).join(" ") }));
    button.append(make("span", { textContent: key.label }));
    button.dataset.codes = key.codes.join(" ");
    button.addEventListener("pointerdown", (event) => (button.setPointerCapture(event.pointerId), press(key.codes[0])));
    for (const name of ["pointerup", "pointercancel"]) button.addEventListener(name, () => release(key.codes[0]));
    keys.append(button);
  }
  find("commands").replaceChildren(...about.commands.map((value) => make("option", { value })));
  const memoryWords = (kind) => ({ none: "no memory", "": "nothing" })[kind] || kind.replace("_", "-");
  view.fill(find("memory"), about.memories, app.run.choice.memory, memoryWords);
  view.fill(find("beside"), ["", ...about.memories], app.run.choice.beside, memoryWords);
  view.fill(find("steps"), about.steps, app.run.choice.steps, (n) => `${n} (${about.sampler})`);
  view.fill(find("guidance"), about.guidances, app.run.choice.guidance, (scale) => (scale === 1 ? "1 (none)" : scale));
  find("real").checked = app.run.choice.real;
  find("places").hidden = !about.openings.simulator;
  find("episodes").hidden = !about.openings.episodes;
  find("episode").max = about.openings.episodes - 1;
  find("frame").value = about.openings.frame;
  const list = find("keys-list");
  list.replaceChildren();
  const rows = [...about.keys.map((key) => [key.codes.map(view.keyName).join(" "), key.label]), ...Object.values(ACTIONS)];
  for (const [name, words] of rows) list.append(make("dt", {}, make("kbd", { textContent: name })), make("dd", { textContent: words }));
  find("loading").hidden = true;
  for (const id of ["videos", "caption", "numbers", "drive", "path"]) find(id).hidden = false;
}

async function ready() {
  for (;;) {
    const now = await status();
    if (now.ready) return;
    view.pill("getting ready", "warn");
    find("doing").textContent = now.doing || "starting";
    find("share").value = now.share;
    find("elapsed").textContent = `${Math.round(now.seconds)} s; compiled programs are kept, so the next start is faster`;
    await new Promise((done) => setTimeout(done, 300));
  }
}

async function session() {
  const known = sessionStorage.getItem("session");
  const reloaded = performance.getEntriesByType("navigation")[0].type === "reload";
  if (known && reloaded) {
    try {
      return { ...(await ask("resume", { session: known })), session: known };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
    }
  }
  for (;;) {
    try {
      return await ask("open", { seed: 0 });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      view.pill("no room", "bad");
      find("doing").textContent = error.message;
      find("elapsed").textContent = "This page tries again by itself.";
      if (error.status !== 429) throw error;
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

async function open() {
  await ready();
  const answer = await session();
  app.session = answer.session;
  sessionStorage.setItem("session", answer.session);
  app.run = answer.run;
  furnish(answer.about);
  await begun(answer);
}

async function reopen(line) {
  app.session = "";
  still();
  sessionStorage.removeItem("session");
  view.toast(`${line} A new one begins.`, true);
  await open();
}

onLost((lost) => {
  app.lost = lost;
  find("banner").hidden = !lost;
  find("banner").textContent = "The player does not answer. Is it still running? This page tries again by itself.";
  if (!lost) view.toast("Connected again.");
});
view.theme();
listen();
requestAnimationFrame(tick);
open().catch((error) => {
  find("doing").textContent = error.message;
  view.pill("stopped", "bad");
});
