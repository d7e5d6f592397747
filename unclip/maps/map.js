/**
 * The map: clouds of dots on a canvas, of which one is chosen, by pointing at it, by the arrow keys, or by finding its caption.
 *
 * A dot is { cloud, at }: a cloud and a number in it. A place p of a cloud is at view.x + view.scale * p[0] on the screen, and
 * as far up as view.y - view.scale * p[1].
 */
"use strict";

const REACH = 14; // px from the pointer at which a dot is still meant
const AS_PICTURES = 6; // times closer than the whole map, from where pictures are drawn as themselves
const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const map = element("map");
const clouds = data.clouds.map((cloud) => ({
  ...cloud,
  shown: true,
  of: new Map(cloud.rows.map((row, at) => [row, at])),
}));
const view = { scale: 1, x: 0, y: 0, whole: 1, moved: false };
const pointers = new Map();
const sheet = new Image();
let chosen = null;
let found = new Set();
let asked = 0;

function screen(cloud, at) {
  const [x, y] = cloud.places[at];
  return [view.x + view.scale * x, view.y - view.scale * y];
}

/** Calls with each dot that is shown. */
function each(call) {
  for (const cloud of clouds) {
    for (let at = 0; cloud.shown && at < cloud.places.length; at++) call(cloud, at, screen(cloud, at));
  }
}

function showWhole() {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const cloud of clouds) {
    for (const [x, y] of cloud.places) {
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [low, high] = [Math.min(low, y), Math.max(high, y)];
    }
  }
  const { clientWidth: width, clientHeight: height } = map;
  view.whole = 0.9 * Math.min(width / (right - left || 1), height / (high - low || 1));
  view.scale = view.whole;
  view.x = width / 2 - (view.scale * (left + right)) / 2;
  view.y = height / 2 + (view.scale * (low + high)) / 2;
  view.moved = false;
  redraw();
}

function zoom(by, x = map.clientWidth / 2, y = map.clientHeight / 2) {
  const scale = Math.min(200 * view.whole, Math.max(0.2 * view.whole, by * view.scale));
  view.x = x + ((view.x - x) * scale) / view.scale;
  view.y = y + ((view.y - y) * scale) / view.scale;
  view.scale = scale;
  view.moved = true;
  redraw();
}

function move(right, down) {
  view.x += right;
  view.y += down;
  view.moved = true;
  redraw();
}

/** Draws once, however often it is asked before the next frame. */
function redraw() {
  if (!asked) asked = requestAnimationFrame(draw);
}

function draw() {
  asked = 0;
  const sharp = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = map;
  if (map.width !== Math.round(width * sharp) || map.height !== Math.round(height * sharp)) {
    [map.width, map.height] = [Math.round(width * sharp), Math.round(height * sharp)];
  }
  const brush = map.getContext("2d");
  const colour = getComputedStyle(document.documentElement);
  brush.setTransform(sharp, 0, 0, sharp, 0, 0);
  brush.clearRect(0, 0, width, height);
  const closer = view.scale / view.whole;
  const radius = Math.min(6, 2.2 * Math.sqrt(Math.max(1, closer)));
  each((cloud, at, [x, y]) => {
    if (x < -40 || y < -40 || x > width + 40 || y > height + 40) return;
    const row = cloud.rows[at];
    const faint = found.size && !found.has(row);
    brush.globalAlpha = faint ? 0.12 : 1;
    if (cloud.name === "pictures" && closer >= AS_PICTURES && drawPicture(brush, row, x - 16, y - 16, 32)) return;
    brush.globalAlpha = faint ? 0.12 : 0.75;
    brush.fillStyle = cloud.colour;
    brush.beginPath();
    brush.arc(x, y, radius, 0, 2 * Math.PI);
    brush.fill();
  });
  brush.globalAlpha = 1;
  brush.fillStyle = colour.getPropertyValue("--soft");
  brush.font = "12px system-ui, sans-serif";
  brush.fillText(`→ ${data.axes[0]}`, 8, height - 8);
  brush.fillText(`↑ ${data.axes[1]}`, 8, 18);
  if (chosen) drawPair(brush, radius, colour.getPropertyValue("--line"));
  placeCard();
}

/** Whether the row has a picture that could be drawn. */
function drawPicture(brush, row, x, y, side) {
  const { cells, columns, side: own } = data.sheet;
  const cell = cells[row];
  if (cell < 0 || !sheet.complete || !sheet.naturalWidth) return false;
  brush.drawImage(sheet, (cell % columns) * own, Math.floor(cell / columns) * own, own, own, x, y, side, side);
  return true;
}

/** Rings about the dots of the chosen pair, and lines from its caption, or else from the dot itself, to the others. */
function drawPair(brush, radius, colour) {
  const row = chosen.cloud.rows[chosen.at];
  const dots = clouds.filter((cloud) => cloud.shown && cloud.of.has(row));
  const middle = dots.find((cloud) => cloud.name === "captions") ?? chosen.cloud;
  const from = screen(middle, middle.of.get(row));
  brush.strokeStyle = colour;
  for (const cloud of dots) {
    const to = screen(cloud, cloud.of.get(row));
    brush.lineWidth = 1.5;
    brush.beginPath();
    brush.moveTo(...from);
    brush.lineTo(...to);
    brush.stroke();
    brush.lineWidth = cloud === chosen.cloud ? 3 : 1.5;
    brush.fillStyle = cloud.colour;
    brush.beginPath();
    brush.arc(...to, radius + 3, 0, 2 * Math.PI);
    brush.fill();
    brush.stroke();
  }
}

function choose(dot) {
  if (chosen?.cloud === dot?.cloud && chosen?.at === dot?.at) return;
  chosen = dot;
  element("card").hidden = !dot;
  if (dot) fillCard(dot.cloud.rows[dot.at], dot);
  redraw();
}

function fillCard(row, dot) {
  const brush = element("thumbnail").getContext("2d");
  brush.clearRect(0, 0, data.sheet.side, data.sheet.side);
  element("thumbnail").hidden = !drawPicture(brush, row, 0, 0, data.sheet.side);
  element("caption").textContent = data.captions[row] || "(no caption)";
  const lines = clouds
    .filter((cloud) => cloud.name !== "pictures" && cloud.of.has(row))
    .map((cloud) => `${cloud.label}: cosine ${cloud.cosines[cloud.of.get(row)].toFixed(2)} to the picture`);
  element("details").textContent = [`${dot.cloud.label} · ${data.names[row]}`, ...lines].join("\n");
}

/** Beside the chosen dot, and inside of the map. */
function placeCard() {
  const card = element("card");
  if (!chosen) return;
  const [x, y] = screen(chosen.cloud, chosen.at);
  const left = x + 20 + card.offsetWidth > map.clientWidth ? x - 20 - card.offsetWidth : x + 20;
  card.style.left = `${Math.max(4, Math.min(left, map.clientWidth - card.offsetWidth - 4))}px`;
  card.style.top = `${Math.max(4, Math.min(y - 30, map.clientHeight - card.offsetHeight - 4))}px`;
}

/** The dot for which `cost` is least, null where it is infinite for all. */
function best(cost) {
  let [least, dot] = [Infinity, null];
  each((cloud, at, place) => {
    const own = cost(place, cloud, at);
    if (own < least) [least, dot] = [own, { cloud, at }];
  });
  return dot;
}

function nearest(x, y) {
  return best(([px, py]) => {
    const away = Math.hypot(px - x, py - y);
    return away <= REACH ? away : Infinity;
  });
}

/** To the next dot that way, those straight ahead before those aside. */
function step(right, down) {
  const middle = [map.clientWidth / 2, map.clientHeight / 2];
  if (!chosen) {
    choose(best(([x, y]) => Math.hypot(x - middle[0], y - middle[1])));
  } else {
    const [x, y] = screen(chosen.cloud, chosen.at);
    const next = best(([px, py]) => {
      const ahead = (px - x) * right + (py - y) * down;
      const aside = Math.abs((px - x) * down) + Math.abs((py - y) * right);
      return ahead > 0.01 && aside <= 2 * ahead ? ahead + 2 * aside : Infinity;
    });
    if (next) choose(next);
  }
  bringIn();
}

/** Moves the map so far that the chosen dot is on it. */
function bringIn() {
  if (!chosen) return;
  const [x, y] = screen(chosen.cloud, chosen.at);
  const into = (at, size) => (at < 20 ? 20 - at : at > size - 20 ? size - 20 - at : 0);
  const [right, down] = [into(x, map.clientWidth), into(y, map.clientHeight)];
  if (right || down) move(right, down);
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

map.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const way = WAYS[event.key];
  if (way && event.shiftKey) move(-60 * way[0], -60 * way[1]);
  else if (way) step(...way);
  else if (event.key === "+" || event.key === "=") zoom(1.4);
  else if (event.key === "-") zoom(1 / 1.4);
  else if (event.key === "0") showWhole();
  else if (event.key === "Escape") choose(null);
  else return;
  event.preventDefault();
});

map.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
  },
  { passive: false },
);

map.addEventListener("pointerdown", (event) => {
  map.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event);
});

map.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) {
    choose(nearest(event.offsetX, event.offsetY));
    return;
  }
  const other = [...pointers.values()].find((each) => each.pointerId !== event.pointerId);
  if (other) {
    const apart = (one) => Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY) || 1;
    zoom(apart(event) / apart(before), other.offsetX, other.offsetY);
  } else {
    move(event.offsetX - before.offsetX, event.offsetY - before.offsetY);
  }
  pointers.set(event.pointerId, event);
});

for (const end of ["pointerup", "pointercancel"]) {
  map.addEventListener(end, (event) => {
    pointers.delete(event.pointerId);
    if (end === "pointerup") choose(nearest(event.offsetX, event.offsetY));
  });
}

map.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") choose(null); // a finger leaves with every tap
});

function makeLegend() {
  for (const cloud of clouds) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${cloud.label} (${cloud.rows.length.toLocaleString("en")})`;
    button.style.setProperty("--of", cloud.colour);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      cloud.shown = !cloud.shown;
      button.setAttribute("aria-pressed", String(cloud.shown));
      if (chosen?.cloud === cloud) choose(null);
      redraw();
    });
    element("legend").append(button);
  }
}

element("find").addEventListener("input", () => {
  const words = element("find").value.trim().toLowerCase();
  const rows = data.captions.map((caption, row) => [`${caption} ${data.names[row]}`.toLowerCase(), row]);
  found = new Set(words ? rows.filter(([text]) => text.includes(words)).map(([, row]) => row) : []);
  element("found").textContent = words ? `${found.size} found${found.size ? ", Enter goes through them" : ""}` : "";
  redraw();
});

element("find").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !found.size) return;
  const rows = [...found];
  const next = rows[(rows.indexOf(chosen?.cloud.rows[chosen.at]) + 1) % rows.length];
  const cloud = clouds.find((each) => each.shown && each.of.has(next));
  if (cloud) choose({ cloud, at: cloud.of.get(next) });
  bringIn();
});

element("closer").addEventListener("click", () => zoom(1.4));
element("further").addEventListener("click", () => zoom(1 / 1.4));
element("whole").addEventListener("click", showWhole);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new ResizeObserver(() => (view.moved ? redraw() : showWhole())).observe(map);
sheet.addEventListener("load", redraw);
if (data.sheet.url) sheet.src = data.sheet.url;
makeLegend();
