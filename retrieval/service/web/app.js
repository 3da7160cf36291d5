// The page: one state, one search for each change of it, and the address that brings the state back.

const $ = (id) => document.getElementById(id);

const state = {
  file: null, // the picture that was chosen here
  box: null, // [left, top, width, height] of it, in pixels
  vector: null, // {values, model}: it as the index's model sees it
  like: [],
  unlike: [],
  where: {}, // field -> condition
  grouped: false,
  k: 24,
  minScore: 0,
};
const SLOW_MS = 150; // from when on an answer is felt to be late: fading what is there takes longer than most searches
const FRAME_MS = 20; // until hits are painted: the address and the preview take longer to draw than these
let asked = 0; // searches begun; an answer to an older one is thrown away
let previewed = null; // the file whose preview is drawn

// ---------------------------------------------------------------- the server

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, "The server cannot be reached.");
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail || response.statusText);
}

function wanted(offset) {
  const body = { k: state.k, offset };
  if (state.vector) Object.assign(body, { vector: state.vector.values, model: state.vector.model });
  if (state.like.length) body.like = state.like;
  if (state.unlike.length) body.unlike = state.unlike;
  if (Object.keys(state.where).length) body.where = state.where;
  if (state.grouped) body.group_by = "product_id";
  if (state.minScore > 0) body.min_score = state.minScore;
  return body;
}

async function ask(offset) {
  const fields = wanted(offset);
  if (!state.file || state.vector) {
    const headers = { "content-type": "application/json" };
    return call("/v1/search", { method: "POST", headers, body: JSON.stringify(fields) });
  }
  const said = new URLSearchParams({ with_vector: "true" });
  if (state.box) said.set("box", state.box.map((side) => Math.round(side)).join(","));
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) said.append(name, typeof one === "object" ? JSON.stringify(one) : one);
  }
  const headers = { "content-type": "application/octet-stream" };
  return call(`/v1/search?${said}`, { method: "POST", headers, body: state.file });
}

// ---------------------------------------------------------------- searching

// Drawing takes the cores and the connections that the answer comes by: so what was asked is drawn behind the answer, or
// before it where that is felt to be late.
async function search({ offset = 0 } = {}) {
  const mine = ++asked;
  if (!state.file && !state.vector && !state.like.length) {
    drawAsked();
    drawHits([], 0);
    say("");
    note("Find what looks alike", "Choose a picture, or start from a hit with “More like this”.");
    return;
  }
  const answer = ask(offset);
  const slow = setTimeout(() => {
    drawAsked();
    say("Searching …");
    document.body.classList.add("busy");
  }, SLOW_MS);
  try {
    const found = await answer;
    if (mine !== asked) return;
    if (found.vector) state.vector = { values: found.vector, model: found.model };
    drawHits(found.hits, offset);
    note();
    const shown = $("hits").children.length;
    if (shown) say(`${shown} ${shown === 1 ? "hit" : "hits"}`);
    else {
      say("No match");
      note("Nothing matches", "No picture meets the filters and the least score. Loosen one of them.");
    }
    $("more").hidden = found.hits.length < state.k;
  } catch (error) {
    if (mine === asked) showError(error);
  } finally {
    clearTimeout(slow);
    if (mine === asked) {
      setTimeout(drawAsked, FRAME_MS);
      document.body.classList.remove("busy");
    }
  }
}

function drawAsked() {
  writeAddress();
  drawSteering();
  drawQuery();
}

function showError(error) {
  if (error.status === 401) return askForKey();
  say("");
  drawHits([], 0);
  if (error.status === 409 && !state.file) note("The model has changed", "This link was made with a former model. Search with the picture again.", true);
  else if (error.status === 0) note("The server cannot be reached", "It may be restarting. Your search is kept.", true, true);
  else if (error.status === 429 || error.status === 503) note("The server is busy", error.message, true, true);
  else note("This could not be searched", error.message, true);
}

// ---------------------------------------------------------------- drawing

function say(text) {
  $("status").textContent = text;
}

function note(title = "", text = "", isBad = false, canRetry = false) {
  const place = $("note");
  place.hidden = !title;
  place.classList.toggle("bad", isBad);
  place.querySelector("h2").textContent = title;
  place.querySelector("p").textContent = text;
  $("retry").hidden = !canRetry;
}

function drawHits(hits, offset) {
  const list = $("hits");
  if (!offset) list.replaceChildren();
  for (const hit of hits) {
    const item = $("hit").content.cloneNode(true).firstElementChild;
    item.dataset.key = hit.key;
    const image = item.querySelector("img");
    image.src = `/v1/images/thumbnail?side_px=384&key=${encodeURIComponent(hit.key)}`;
    image.alt = hit.product_id ? `${hit.product_id}, ${hit.key}` : hit.key;
    image.addEventListener("error", () => image.replaceWith("The picture’s file is not there"), { once: true });
    item.querySelector(".name").textContent = hit.product_id || hit.key;
    const probability = hit.match_probability === null ? "" : ` · ${Math.round(100 * hit.match_probability)}% the same product`;
    item.querySelector(".score").textContent = `score ${hit.score.toFixed(3)}${probability}`;
    const said = item.querySelector("dl");
    for (const [name, value] of Object.entries(hit.metadata).slice(0, 6)) {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = typeof value === "object" ? JSON.stringify(value) : String(value);
      said.append(term, text);
    }
    item.querySelector(".like").setAttribute("aria-label", `More like ${hit.key}`);
    item.querySelector(".unlike").setAttribute("aria-label", `Less like ${hit.key}`);
    item.querySelector(".like").addEventListener("click", () => steer("like", hit.key));
    item.querySelector(".unlike").addEventListener("click", () => steer("unlike", hit.key));
    list.append(item);
  }
  if (!hits.length) $("more").hidden = true;
}

function steer(way, key) {
  for (const list of [state.like, state.unlike]) if (list.includes(key)) list.splice(list.indexOf(key), 1);
  state[way].push(key);
  search();
  $("results").focus();
}

function drawSteering() {
  const chips = [];
  for (const [way, sign, words] of [["like", "+", "More like"], ["unlike", "−", "Less like"]]) {
    for (const key of state[way]) {
      const chip = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "✕";
      button.setAttribute("aria-label", `Leave out: ${words} ${key}`);
      button.addEventListener("click", () => {
        state[way].splice(state[way].indexOf(key), 1);
        search();
      });
      chip.append(`${sign} ${key}`, button);
      chips.push(chip);
    }
  }
  $("steering").replaceChildren(...chips);
}

// ---------------------------------------------------------------- the picture and its box

function choose(file) {
  if (!file) return;
  Object.assign(state, { file, vector: null, box: null });
  search();
}

function forget() {
  Object.assign(state, { file: null, vector: null, box: null });
  $("file").value = "";
  search();
}

function drawQuery() {
  $("preview").hidden = !state.file;
  $("drop").hidden = Boolean(state.file);
  $("linked").hidden = Boolean(state.file) || !state.vector;
  if (state.file === previewed) return;
  previewed = state.file;
  setBox(state.box);
  if (!previewed) return;
  $("picture").src = URL.createObjectURL(previewed);
  $("picture").onload = () => URL.revokeObjectURL($("picture").src);
}

// Where the picture lies within its element, and how many of its pixels are one of the screen's.
function placeOfPicture() {
  const image = $("picture");
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
  return {
    scale,
    left: (image.clientWidth - scale * image.naturalWidth) / 2,
    top: (image.clientHeight - scale * image.naturalHeight) / 2,
  };
}

function setBox(box) {
  state.box = box;
  $("box").hidden = $("whole").hidden = !box;
  $("box-hint").hidden = Boolean(box);
  document.querySelectorAll("[data-side]").forEach((input) => {
    input.value = box ? Math.round(box[input.dataset.side]) : "";
  });
  if (!box) return;
  const { scale, left, top } = placeOfPicture();
  Object.assign($("box").style, {
    left: `${left + scale * box[0]}px`,
    top: `${top + scale * box[1]}px`,
    width: `${scale * box[2]}px`,
    height: `${scale * box[3]}px`,
  });
}

function searchBox(box) {
  setBox(box);
  state.vector = null;
  search();
}

function drawBoxes() {
  const canvas = $("canvas");
  let from = null;
  const at = (event) => {
    const edges = canvas.getBoundingClientRect();
    const { scale, left, top } = placeOfPicture();
    const image = $("picture");
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    return [
      clamp((event.clientX - edges.left - left) / scale, image.naturalWidth),
      clamp((event.clientY - edges.top - top) / scale, image.naturalHeight),
    ];
  };
  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])];
  canvas.addEventListener("pointerdown", (event) => {
    from = at(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (from) setBox(between(from, at(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!from) return;
    const box = between(from, at(event));
    from = null;
    const { scale } = placeOfPicture();
    if (box[2] * scale < 8 || box[3] * scale < 8) setBox(null); // a click
    else searchBox(box);
  });
}

// ---------------------------------------------------------------- filters

function drawFilters(fields) {
  const rows = fields.map(filterOf).filter(Boolean);
  $("filters").append(...rows);
}

function filterOf(field) {
  const row = document.createElement("div");
  row.className = "filter";
  if (field.kinds.includes("number") && field.least < field.greatest) {
    const name = document.createElement("span");
    name.textContent = field.name;
    const range = document.createElement("div");
    range.className = "range";
    const ends = [["≥", ">=", field.least, "at least"], ["≤", "<=", field.greatest, "at most"]].map(([sign, operator, end, words]) => {
      const input = document.createElement("input");
      input.type = "number";
      input.step = "any";
      input.placeholder = `${sign} ${end}`;
      input.dataset.operator = operator;
      input.setAttribute("aria-label", `${field.name} ${words}`);
      input.addEventListener("change", () => {
        const condition = {};
        for (const one of range.children) if (one.value !== "") condition[one.dataset.operator] = Number(one.value);
        setFilter(field.name, Object.keys(condition).length ? condition : null);
      });
      return input;
    });
    range.append(...ends);
    row.append(name, range);
  } else if (field.kinds.includes("boolean") || field.texts.length > 1) {
    const label = document.createElement("label");
    label.textContent = field.name;
    const select = document.createElement("select");
    select.id = label.htmlFor = `filter-${field.name}`;
    const choices = field.kinds.includes("boolean") ? [["yes", true], ["no", false]] : field.texts.map((text) => [text, text]);
    select.append(new Option("any", ""), ...choices.map(([text], at) => new Option(text, String(at))));
    select.addEventListener("change", () => setFilter(field.name, select.value === "" ? null : choices[Number(select.value)][1]));
    row.append(label, select);
    row.choices = choices;
  } else return null;
  row.dataset.field = field.name;
  return row;
}

function setFilter(name, condition) {
  if (condition === null) delete state.where[name];
  else state.where[name] = condition;
  search();
}

function showFilters() {
  for (const row of document.querySelectorAll(".filter")) {
    const condition = state.where[row.dataset.field];
    for (const input of row.querySelectorAll("input")) input.value = condition?.[input.dataset.operator] ?? "";
    const select = row.querySelector("select");
    if (select) select.value = condition === undefined ? "" : String(row.choices.findIndex(([, value]) => value === condition));
  }
}

// ---------------------------------------------------------------- the address

function writeAddress() {
  const said = new URLSearchParams();
  if (state.vector) said.set("v", `${state.vector.model}.${packed(state.vector.values)}`);
  for (const key of state.like) said.append("like", key);
  for (const key of state.unlike) said.append("unlike", key);
  if (Object.keys(state.where).length) said.set("where", JSON.stringify(state.where));
  if (state.grouped) said.set("group", "1");
  if (state.minScore > 0) said.set("min", String(state.minScore));
  if (state.k !== 24) said.set("k", String(state.k));
  const text = said.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname);
}

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const [model, values] = (said.get("v") || "").split(".");
  state.vector = values ? { model, values: unpacked(values) } : null;
  state.like = said.getAll("like");
  state.unlike = said.getAll("unlike");
  try {
    state.where = JSON.parse(said.get("where") || "{}");
  } catch {
    state.where = {};
  }
  state.grouped = said.has("group");
  state.minScore = Number(said.get("min")) || 0;
  state.k = Number(said.get("k")) || 24;
  $("grouped").checked = state.grouped;
  $("min-score").value = state.minScore;
  $("k").value = state.k;
  showLeast();
  showFilters();
}

// A unit vector as text: two bytes a value, which moves no score by more than a ten-thousandth.
function packed(values) {
  const bytes = new Uint8Array(Int16Array.from(values, (value) => Math.round(32767 * value)).buffer);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpacked(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  const values = Array.from(new Int16Array(bytes.buffer), (value) => value / 32767);
  const length = Math.hypot(...values);
  return values.map((value) => value / length);
}

function showLeast() {
  $("min-score-said").textContent = state.minScore > 0 ? state.minScore.toFixed(2) : "any";
}

// ---------------------------------------------------------------- beginning

function askForKey() {
  $("key-form").hidden = false;
  $("query").hidden = $("results").hidden = true;
  $("key").focus();
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("/v1/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key: $("key").value }),
    });
    location.reload();
  } catch (error) {
    $("key-error").textContent = error.message;
  }
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the search's
  $("results").focus();
});
$("file").addEventListener("change", () => choose($("file").files[0]));
$("clear").addEventListener("click", forget);
$("unlink").addEventListener("click", forget);
$("whole").addEventListener("click", () => searchBox(null));
$("retry").addEventListener("click", () => search());
$("more").addEventListener("click", () => search({ offset: $("hits").children.length }));
$("apply-box").addEventListener("click", () => {
  const sides = [...document.querySelectorAll("[data-side]")].map((input) => Number(input.value));
  if (sides[2] > 0 && sides[3] > 0) searchBox(sides);
});
$("options").addEventListener("submit", (event) => event.preventDefault());
$("grouped").addEventListener("change", () => {
  state.grouped = $("grouped").checked;
  search();
});
$("k").addEventListener("change", () => {
  state.k = Number($("k").value);
  search();
});
$("min-score").addEventListener("input", () => {
  state.minScore = Number($("min-score").value);
  showLeast();
});
$("min-score").addEventListener("change", () => search());
document.addEventListener("paste", (event) => choose([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  choose(event.dataTransfer.files[0]);
});
window.addEventListener("resize", () => setBox(state.box));
window.addEventListener("hashchange", () => {
  state.file = null;
  readAddress();
  search();
});

const themes = { kept: () => localStorage.getItem("theme"), now: () => document.documentElement.dataset.theme };
if (themes.kept()) document.documentElement.dataset.theme = themes.kept();
$("theme").addEventListener("click", () => {
  const isDark = themes.now() ? themes.now() === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});

$("refine").open = !matchMedia("(max-width: 46rem)").matches;
drawBoxes();
try {
  const held = await call("/v1/info");
  $("holds").textContent = `${held.images.toLocaleString()} pictures · ${held.model.name}`;
  drawFilters(await call("/v1/fields").then((said) => said.fields, () => [])); // searches go without
  readAddress();
  search();
} catch (error) {
  showError(error);
}
