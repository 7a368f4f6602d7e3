// Questions to the server, and the words in which times and numbers are said.

export class Trouble extends Error {
  constructor(error, remedy, status = 0) {
    super(error);
    this.remedy = remedy;
    this.status = status;
  }
}

/** The JSON answer to a request; raises Trouble with a remedy. A busy server is asked again, as it wishes. */
export async function ask(path, options = {}) {
  for (let tries = 1; ; tries++) {
    let answer;
    try {
      answer = await fetch(path, { credentials: "same-origin", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Trouble("The server does not answer", "See whether svilm app is still running, then try again.");
    }
    const patience = Number(answer.headers.get("Retry-After"));
    if (answer.status === 503 && patience && tries < 4) {
      await wait(patience * 1000 * (0.5 + Math.random() / 2), options.signal);
      continue;
    }
    const said = await answer.json().catch((error) => {
      if (error.name === "AbortError") throw error;
      return null;
    });
    if (answer.ok && said) return said;
    if (answer.status === 401) throw new Trouble("This page needs its token again", "Open the address that svilm app printed.", 401);
    throw new Trouble(sentence(said?.error ?? `The server answered ${answer.status}`), sentence(said?.remedy ?? "Try again."), answer.status);
  }
}

export function query(values) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== "" && each !== null && each !== undefined) parts.append(name, each);
    }
  }
  return parts.toString();
}

function wait(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("left", "AbortError"));
    });
  });
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** 75.3 → "1:15", 3675 → "1:01:15"; with tenths where a moment is short. */
export function clock(seconds, tenths = false) {
  const unit = tenths ? 10 : 1;
  const whole = Math.floor(seconds * unit + 0.051 * unit) / unit; // times are fractions of frames
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = (whole % 60).toFixed(tenths ? 1 : 0).padStart(tenths ? 4 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export function span(hit) {
  const whole = (seconds) => Math.abs(seconds - Math.round(seconds)) < 0.05;
  const tenths = hit.end - hit.start < 3 && !(whole(hit.start) && whole(hit.end));
  return `${clock(hit.start, tenths)} – ${clock(hit.end, tenths)}`;
}

/** 4000 → "1 h 7 min" */
export function length(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function many(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/** "trip/day 1/boat.mp4" → ["trip/day 1/", "boat"] */
export function nameOf(video) {
  const cut = video.lastIndexOf("/") + 1;
  return [video.slice(0, cut), video.slice(cut).replace(/\.[^.]{1,5}$/, "")];
}

/** An element with properties, and children that are elements or texts. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
