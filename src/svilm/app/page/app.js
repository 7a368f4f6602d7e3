// The page: what is asked stands in its address, so that a search can be shared and gone back to.

import { Trouble, ask, length, make, many, nameOf, query } from "./ask.js";
import { Cards, shape } from "./cards.js";
import { Nouns } from "./nouns.js";
import { Player, still } from "./player.js";
import { Theatre } from "./theatre.js";

const $ = (id) => document.getElementById(id);
const STEP = 12;
const MOST = 96;
const TIMELINES = 24; // as many as the server sends at once
const LENGTHS = [
  ["Any length", "", ""],
  ["Under 5 s", "", "5"],
  ["5 to 15 s", "5", "15"],
  ["15 to 60 s", "15", "60"],
  ["Over a minute", "60", ""],
];

let index = null; // what the server says of itself
let picture = null; // a File to search with: the one thing that no address can hold
const pictures = new Map(); // those taken, by the key that the history holds for them
let answer = { hits: [], nouns: [] };
let lines = { points: {}, low: 0, high: 1 };
let leave = new AbortController();

// The address

function asked() {
  const values = new URLSearchParams(location.search);
  const like = /^([0-9a-f]{18})@([\d.]+)-([\d.]+)$/.exec(values.get("like") ?? "");
  return {
    q: values.get("q")?.slice(0, 300) ?? "",
    like: like && { video: like[1], start: Number(like[2]), end: Number(like[3]) },
    folder: values.get("folder") ?? "",
    shortest: values.get("min") ?? "",
    longest: values.get("max") ?? "",
    k: Math.min(MOST, Math.max(STEP, Number(values.get("n")) || STEP)),
    open: Number(values.get("open")) || 0,
  };
}

function address({ q, like, folder, shortest, longest, k, open }) {
  const values = { q, like: like && `${like.video}@${like.start}-${like.end}`, folder, min: shortest, max: longest };
  const text = query({ ...values, n: k > STEP ? k : "", open: open || "" });
  return text ? `/?${text}` : "/";
}

function go(change, { replace = false } = {}) {
  const next = { ...asked(), open: 0, ...change };
  if ("q" in change || "like" in change) next.k = STEP;
  write(next, { replace });
  render();
}

/** Put a search into the address, and the key of its picture beside it. */
function write(next, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](picture && { picture: picture.key }, "", address(next));
}

// Asking

async function render() {
  const state = asked();
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const asking = Boolean(state.q || state.like || picture);
  document.body.dataset.view = asking ? "found" : "start";
  document.title = state.q ? `${state.q} – svilm` : "svilm";
  $("q").value = state.q;
  $("start").hidden = asking;
  $("found").hidden = !asking;
  $("trouble").hidden = true;
  nouns.clear();
  showFilters(state);
  showExample(state);
  if (!asking) {
    theatre.close();
    cards.show([]);
    return;
  }
  const slow = setTimeout(() => {
    if (state.k === STEP) cards.wait(8);
    $("count").textContent = index?.modelState === "loading" ? "The model is loading: the first search takes a little longer." : "Searching …";
  }, 160);
  try {
    answer = await find(state, signal);
  } catch (trouble) {
    if (trouble.name !== "AbortError") showTrouble(trouble);
    return;
  } finally {
    clearTimeout(slow);
  }
  showAnswer(state);
  if (index && answer.version !== index.version) look();
  if (answer.timelines) addLines(answer.timelines);
  else drawLines(state, signal);
}

function find({ q, like, folder, shortest, longest, k }, signal) {
  const where = { k, folder, shortest, longest };
  if (picture) {
    const options = { method: "POST", body: picture, headers: { "Content-Type": picture.type || "image/unknown" }, signal };
    return ask(`/api/picture?${query(where)}`, options);
  }
  if (like) return ask(`/api/like?${query({ ...like, ...where })}`, { signal });
  return ask(`/api/search?${query({ q, ...where })}`, { signal });
}

async function drawLines({ q }, signal) {
  const videos = [...new Set(answer.hits.map((hit) => hit.id))];
  try {
    for (let first = 0; first < videos.length; first += TIMELINES) {
      const points = await ask(`/api/timelines?${query({ q, video: videos.slice(first, first + TIMELINES) })}`, { signal });
      addLines(points);
    }
  } catch (trouble) {
    if (trouble.name !== "AbortError") console.warn(trouble.message); // results without time lines are still results
  }
}

function addLines(points) {
  Object.assign(lines.points, points);
  const scores = Object.values(lines.points).flatMap((each) => each.map(([, , score]) => score));
  if (!scores.length) return;
  lines.low = Math.min(...scores);
  lines.high = Math.max(...scores, lines.low + 0.02);
  cards.draw(lines);
  if (theatre.dialog.open) theatre.draw();
}

// Showing

function showAnswer(state) {
  const { hits, more } = answer;
  lines = { points: {}, low: 0, high: 1 };
  const found = answer.nouns ?? [];
  const can = index?.canGround ?? true;
  const words = state.q && !picture ? (can ? nouns.write(state.q, found) : [state.q]) : [picture ? "Moments like this picture" : `Moments like ${nameOf(answer.like.video)[1]}`];
  $("sentence").replaceChildren(...words);
  showExample(state);
  cards.show(hits);
  $("more").hidden = !more;
  const videos = new Set(hits.map((hit) => hit.id)).size;
  $("count").textContent = hits.length ? `${more ? "The best " : ""}${many(hits.length, "moment")} in ${many(videos, "video")}` : "";
  hint("none");
  if (!hits.length) showNothing(state);
  else if (state.open) openTheatre(Math.min(state.open, hits.length) - 1);
  else theatre.close();
}

function hint(what, noun, trouble, film) {
  if (!answer.hits.length) return; // then it says what to do
  const found = answer.nouns ?? [];
  let said = [];
  if (what === "looking") said = [`Looking for “${noun}” …`];
  else if (what === "shown") {
    const part = film.box[2] - film.box[0] < 0.7 || film.box[3] - film.box[1] < 0.7;
    const scale = make("span", { className: "scale", title: "From little to most of the group that is nearest to the noun" });
    said = [`Where the model sees “${noun}”${part ? ", in the part of the picture that it looks at" : ""}`, scale];
  }
  else if (what === "trouble") said = [`${trouble.message} ${trouble.remedy}`];
  else if (found.length && index && !index.canGround) said = [`${index.model} finds moments, but cannot show where a noun is.`];
  else if (found.length) said = [`${matchMedia("(hover: none)").matches ? "Tap" : "Point at"} an underlined noun to see where it is.`];
  $("hint").replaceChildren(...said);
}

function showNothing({ folder, shortest, longest }) {
  const filtered = folder || shortest || longest;
  $("sentence").replaceChildren(filtered ? "No moments in these filters" : "Nothing is indexed yet");
  const reset = make("button", { type: "button", textContent: "Search everything" });
  reset.addEventListener("click", () => go({ folder: "", shortest: "", longest: "" }));
  $("hint").replaceChildren(filtered ? reset : "Run svilm index with a folder of videos.");
}

function showTrouble(trouble) {
  console.info(trouble.message);
  $("found").hidden = true;
  $("trouble").hidden = false;
  $("trouble-what").textContent = trouble.message;
  $("trouble-remedy").textContent = trouble instanceof Trouble ? trouble.remedy : "Reload the page.";
}

function showExample({ like }) {
  const name = picture ? picture.name : like && nameOf(answer.like?.video ?? "a moment")[1];
  $("example").hidden = !name;
  if (!name) return;
  $("example-name").textContent = name;
  if (!picture) {
    $("example-picture").file = null;
    $("example-picture").src = `/poster/${like.video}?at=${((like.start + like.end) / 2).toFixed(2)}`;
  } else if ($("example-picture").file !== picture) {
    URL.revokeObjectURL($("example-picture").src);
    $("example-picture").src = URL.createObjectURL(picture);
    $("example-picture").file = picture;
  }
}

function showFilters({ folder, shortest, longest }) {
  const [lengths, folders] = [$("length"), $("folder")];
  const value = `${shortest}|${longest}`;
  const options = LENGTHS.map(([text, least, most]) => make("option", { value: `${least}|${most}`, textContent: text }));
  if (!options.some((option) => option.value === value)) {
    options.push(make("option", { value, textContent: `${shortest || 0} to ${longest || "∞"} s` }));
  }
  lengths.replaceChildren(...options);
  lengths.value = value;
  if (folder && ![...folders.options].some((option) => option.value === folder)) folders.append(make("option", { value: folder, textContent: folder }));
  folders.value = folder;
  lengths.classList.toggle("set", value !== "|");
  folders.classList.toggle("set", folder !== "");
}

function showIndex() {
  const { moments, videos, seconds, failures, failed, folders, starts } = index;
  const all = `${many(moments, "moment")} of ${many(videos, "video")}, ${length(seconds)} in all`;
  $("lead").textContent = moments ? `Say what happens in it. ${all}.` : "Nothing is indexed yet: run svilm index with a folder of videos.";
  $("facts").textContent = `${all} · model ${index.model}`;
  showIdeas();
  $("starts-part").hidden = !starts.length;
  const rows = starts.length >= 6 ? starts.length - (starts.length % 6) : starts.length; // whole rows of six
  shape($("starts"), starts);
  $("starts").replaceChildren(...starts.slice(0, rows).map(starting));
  $("folder").closest("label").hidden = !folders.length;
  const options = folders.map(({ folder, videos: inside }) => make("option", { value: folder, textContent: `${folder} (${inside})` }));
  $("folder").replaceChildren($("folder").options[0], ...options);
  $("failed").hidden = !failures;
  $("failed").querySelector("summary").textContent = `${many(failures, "file")} could not be read`;
  const reasons = failed.map(({ video, reason }) => make("li", {}, make("b", { textContent: video }), ` ${reason.replace(`${video}: `, "")}`));
  if (failures > failed.length) reasons.push(make("li", {}, `and ${failures - failed.length} more`));
  $("failed").querySelector("ul").replaceChildren(...reasons);
  showFilters(asked());
  if (!nouns.shown) hint("none");
}

function showIdeas() {
  const { ideas } = index;
  if (ideas.length) $("q").placeholder = ideas[0];
  $("ideas-part").hidden = !ideas.length;
  $("ideas").replaceChildren(...ideas.map((idea) => make("li", {}, button(idea, () => choose({ q: idea })))));
}

function starting(video) {
  const half = Math.min(2, video.duration / 2);
  const moment = { ...video, start: Math.max(0, video.duration / 2 - half), end: video.duration / 2 + half };
  const name = nameOf(video.video)[1];
  const stage = button("", () => choose({ like: { video: video.id, start: round(moment.start), end: round(moment.end) } }));
  stage.className = "stage";
  stage.setAttribute("aria-label", `Find moments like ${name}`);
  const player = new Player(stage, moment);
  for (const enter of ["pointerenter", "focus"]) stage.addEventListener(enter, () => still.matches || player.play());
  for (const away of ["pointerleave", "blur"]) stage.addEventListener(away, () => player.stop());
  return make("li", {}, stage, make("p", { className: "caption" }, make("span", { className: "name", textContent: name })));
}

// Doing

const round = (seconds) => Number(seconds.toFixed(3));

function button(text, action) {
  const made = make("button", { type: "button", textContent: text });
  made.addEventListener("click", action);
  return made;
}

function choose(change) {
  picture = null;
  scrollTo(0, 0);
  go({ q: "", like: null, ...change });
}

function take(file) {
  if (!file) return;
  file.key = `${performance.timeOrigin}-${pictures.size}`; // the history outlives the page
  pictures.set(file.key, file);
  picture = file;
  scrollTo(0, 0);
  go({ q: "", like: null });
}

function openTheatre(number) {
  cards.pause();
  nouns.clear();
  theatre.open(answer.hits, number, answer.nouns ?? [], lines);
}

const cards = new Cards(
  $("results"),
  (number) => {
    write({ ...asked(), open: number + 1 });
    openTheatre(number);
  },
  () => nouns.refresh(),
);
const nouns = new Nouns(() => cards.visible(), hint);
const theatre = new Theatre({
  get canGround() {
    return index?.canGround ?? true;
  },
  moved(number) {
    const state = asked();
    if (state.open === (number ?? -1) + 1) return;
    write({ ...state, open: (number ?? -1) + 1 }, { replace: true });
    if (number === null) cards.focus(state.open - 1);
  },
  like(hit) {
    theatre.close();
    choose({ like: { video: hit.id, start: round(hit.start), end: round(hit.end) } });
  },
  link(number) {
    return location.origin + address({ ...asked(), open: number + 1 });
  },
});

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = $("q").value.trim();
  if (!q) return $("q").focus();
  $("q").blur();
  choose({ q });
});
$("folder").addEventListener("change", (event) => go({ folder: event.target.value }));
$("length").addEventListener("change", (event) => {
  const [shortest, longest] = event.target.value.split("|");
  go({ shortest, longest });
});
$("more").addEventListener("click", () => {
  const { k } = asked();
  go({ k: Math.min(MOST, k + STEP) }, { replace: true });
});
$("again").addEventListener("click", () => render());
$("example-off").addEventListener("click", () => choose({}));
$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = "";
});
document.querySelector(".brand").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose({ folder: "", shortest: "", longest: "" });
  $("q").focus();
});

const pictureIn = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  take(pictureIn(event.dataTransfer));
});
addEventListener("paste", (event) => take(pictureIn(event.clipboardData)));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || theatre.dialog.open) return;
  const writing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !writing) {
    event.preventDefault();
    $("q").focus();
    $("q").select();
  } else if (event.key === "Escape" && nouns.shown) nouns.clear();
  else if (event.key === "Escape" && writing) event.target.blur();
  else if (event.key === "Escape") $("q").focus();
  else if (event.key === "ArrowDown" && event.target === $("q") && cards.cards.length) {
    event.preventDefault();
    cards.focus(0);
  }
});
addEventListener("popstate", (event) => {
  const { open } = asked();
  picture = pictures.get(event.state?.picture) ?? null;
  if (theatre.dialog.open && !open) theatre.close();
  else render();
});

/** Take in what the server says of itself, and show it where the index was read again since. */
function know(said) {
  const changed = said.version !== index?.version;
  index = said;
  if (changed) showIndex();
}

async function look() {
  know(await ask("/api/index").catch(() => index));
}

async function learn() {
  try {
    know(await ask("/api/index"));
  } catch (trouble) {
    showTrouble(trouble);
    return;
  }
  for (let pause = 500; index.modelState === "loading"; pause = Math.min(4000, pause * 1.5)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    await look();
  }
  showIdeas(); // the model may have had some
  $("notice").hidden = index.modelState !== "failed";
  $("notice").textContent = "The model of this index cannot be loaded, so it cannot be searched. What svilm app printed says why.";
}

addEventListener("focus", () => index && look()); // videos may have been indexed in another window

learn();
render();
if (matchMedia("(hover: hover)").matches && !location.search) $("q").focus();
