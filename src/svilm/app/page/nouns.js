// The nouns of the query, and where they are in the moments on screen.

import { ask, make, query } from "./ask.js";
import { still } from "./player.js";

const AT_ONCE = 2;
const films = new Map();

/** A noun's overlays in a player's moment, asked for once; who comes after an abort asks anew. */
function filmOf(player, noun, signal) {
  const key = `${player.key}&${query({ noun })}`;
  if (!films.has(key)) {
    if (films.size > 400) films.delete(films.keys().next().value);
    const film = ask(`/api/heat?${key}`, { signal });
    const forget = () => films.get(key) === film && films.delete(key);
    films.set(key, film);
    signal.addEventListener("abort", forget); // at once: the promise itself fails only later
    film.then(() => signal.removeEventListener("abort", forget), forget);
  }
  return films.get(key);
}

export class Nouns {
  /** `players()` are those on screen, nearest first; `said(state, noun, trouble)` is told what goes on. */
  constructor(players, said) {
    this.players = players;
    this.said = said;
    this.pinned = null;
    this.shown = null;
  }

  /** The query as nodes, its nouns as buttons; nouns that do not stand in it as they are come after it. */
  write(text, nouns) {
    const nodes = [];
    let rest = 0;
    const lower = text.toLowerCase();
    const later = [];
    for (const noun of nouns) {
      const place = lower.indexOf(noun, rest);
      if (place < 0 || lower.length !== text.length) {
        later.push(noun);
        continue;
      }
      nodes.push(text.slice(rest, place), this.button(noun, text.slice(place, place + noun.length)));
      rest = place + noun.length;
    }
    nodes.push(text.slice(rest));
    for (const noun of later) nodes.push(" ", this.button(noun));
    return nodes;
  }

  button(noun, text = noun) {
    const button = make("button", { type: "button", className: "noun", textContent: text, title: `Show where “${noun}” is` });
    button.setAttribute("aria-pressed", "false");
    button.dataset.noun = noun;
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.show(noun));
    button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.show(this.pinned));
    button.addEventListener("focus", () => button.matches(":focus-visible") && this.show(noun));
    button.addEventListener("blur", () => this.show(this.pinned));
    button.addEventListener("click", () => {
      this.pinned = this.pinned === noun ? null : noun;
      this.show(this.pinned);
    });
    return button;
  }

  clear() {
    this.pinned = null;
    this.show(null);
  }

  async show(noun) {
    if (noun === this.shown) return this.#mark();
    this.leave?.abort();
    this.shown = noun;
    this.#mark();
    for (const player of this.lit ?? []) {
      player.heat(null);
      player.stage.classList.remove("waiting");
      if (!player.hovered && !player.controls) player.stop();
    }
    this.lit = [];
    if (!noun) return this.said("none");
    const leave = (this.leave = new AbortController());
    await this.#light(noun, leave.signal);
  }

  /** Moments that came on screen since. */
  refresh() {
    if (!this.shown) return;
    const noun = this.shown;
    this.shown = null;
    this.show(noun);
  }

  async #light(noun, signal) {
    const waiting = this.players().filter((player) => !player.broken);
    this.lit = waiting;
    this.said("looking", noun);
    for (const player of waiting) player.stage.classList.add("waiting");
    const queue = [...waiting];
    const work = async () => {
      for (let player = queue.shift(); player && !signal.aborted; player = queue.shift()) {
        let film = null;
        try {
          film = await filmOf(player, noun, signal);
        } catch (trouble) {
          if (trouble.status !== 410) throw trouble; // a file that is gone says nothing of the others
        }
        if (signal.aborted) return;
        player.stage.classList.remove("waiting");
        if (!film) continue;
        player.heat(film);
        if (!still.matches && !player.controls) player.play();
        this.said("shown", noun, null, film);
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    } catch (trouble) {
      if (signal.aborted || trouble.name === "AbortError") return;
      for (const player of waiting) player.stage.classList.remove("waiting");
      this.said("trouble", noun, trouble);
    }
  }

  #mark() {
    for (const button of document.querySelectorAll(".noun")) {
      button.setAttribute("aria-pressed", String(button.dataset.noun === this.pinned));
      button.classList.toggle("on", button.dataset.noun === this.shown);
    }
  }
}
