// The results as cards in a grid: each plays under the pointer or the keyboard, and shows its place in its video.

import { make, nameOf, span } from "./ask.js";
import { Player, still } from "./player.js";
import { Timeline } from "./timeline.js";

const touch = matchMedia("(hover: none)");

export class Cards {
  /** `opened(number)` is called for a card that was chosen, `seen()` when others have come on screen. */
  constructor(list, opened, seen) {
    this.list = list;
    this.opened = opened;
    this.seen = seen;
    this.cards = [];
    this.watcher = new IntersectionObserver((entries) => this.#watch(entries), { threshold: 0.35 });
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show these hits; the first ones stay as they are where they are the same. */
  show(hits) {
    const key = (hit) => `${hit.id} ${hit.start} ${hit.end}`;
    let same = 0;
    while (same < this.cards.length && same < hits.length && key(this.cards[same].hit) === key(hits[same])) same++;
    for (const card of this.cards.splice(same)) {
      this.watcher.unobserve(card.element);
      card.player.close();
    }
    for (const element of [...this.list.children].slice(same)) element.remove();
    shape(this.list, hits);
    for (const hit of hits.slice(same)) this.#add(hit);
    this.#rove(0);
  }

  /** Grey cards while an answer is on its way. */
  wait(count) {
    this.show([]);
    const blank = () => make("li", { className: "card skeleton", ariaHidden: "true" }, make("span", { className: "stage" }), make("p", { className: "caption" }));
    this.list.append(...Array.from({ length: count }, blank));
  }

  draw(lines) {
    for (const { hit, line } of this.cards) {
      if (lines.points[hit.id]) line.draw(lines.points[hit.id], lines.low, lines.high);
    }
  }

  /** Players on screen, those in the middle first. */
  visible() {
    return this.cards.filter((card) => card.visible).map((card) => card.player);
  }

  focus(number) {
    const card = this.cards[Math.min(Math.max(0, number), this.cards.length - 1)];
    if (!card) return;
    this.#rove(this.cards.indexOf(card));
    card.stage.focus();
    card.element.scrollIntoView({ block: "nearest" });
  }

  pause() {
    for (const { player } of this.cards) player.stop();
  }

  #add(hit) {
    const number = this.cards.length;
    const [folder, name] = nameOf(hit.video);
    const stage = make("button", { type: "button", className: "stage" });
    stage.setAttribute("aria-label", `${hit.rank}: ${name}, ${span(hit)}, similarity ${hit.score.toFixed(2)}. Open`);
    const line = new Timeline(hit, (seconds) => player.go(seconds));
    const player = new Player(stage, hit, { told: (seconds) => line.at(seconds) });
    stage.append(make("span", { className: "time", textContent: span(hit) }));
    const title = make("span", { className: "name", title: hit.video }, name);
    if (folder) title.append(" ", make("small", { textContent: folder.slice(0, -1) }));
    const score = make("span", { className: "score", textContent: hit.score.toFixed(2), title: "Similarity: the cosine of query and moment" });
    const element = make("li", { className: "card" }, stage, make("p", { className: "caption" }, title, score), line.element);
    const card = { hit, stage, player, line, element, visible: false };
    const leave = () => {
      if (element.matches(":hover") && !touch.matches) return;
      player.hovered = false;
      if (!player.heatFilm) player.stop();
    };
    const enter = () => {
      player.hovered = true;
      if (!still.matches && !player.wanted) player.play();
    };
    element.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && enter());
    element.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
    stage.addEventListener("focus", () => {
      this.#rove(this.cards.indexOf(card));
      if (stage.matches(":focus-visible")) enter();
    });
    stage.addEventListener("blur", leave);
    stage.addEventListener("click", () => this.opened(number));
    this.cards.push(card);
    this.list.append(element);
    this.watcher.observe(element);
  }

  #watch(entries) {
    for (const { target, isIntersecting } of entries) {
      const card = this.cards.find(({ element }) => element === target);
      if (!card) continue;
      card.visible = isIntersecting;
      if (!isIntersecting) card.player.close();
    }
    if (touch.matches && !still.matches) this.#playMiddle();
    this.seen();
  }

  /** Where nothing can hover, the card in the middle of the screen plays. */
  #playMiddle() {
    const far = ({ element }) => Math.abs(element.getBoundingClientRect().top + element.offsetHeight / 2 - innerHeight / 2);
    const shown = this.cards.filter((card) => card.visible).sort((one, other) => far(one) - far(other));
    shown.forEach(({ player }, place) => {
      if (place === 0) player.play();
      else if (!player.heatFilm) player.stop();
    });
  }

  #rove(number) {
    this.cards.forEach(({ stage, line }, place) => {
      stage.tabIndex = line.bar.tabIndex = place === number ? 0 : -1;
    });
  }

  #key(event) {
    const number = this.cards.findIndex(({ stage }) => stage === event.target);
    if (number < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const wide = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide, Home: -number, End: this.cards.length - 1 - number };
    if (!(event.key in steps)) return;
    const target = number + steps[event.key];
    event.preventDefault();
    if (target >= 0 && target < this.cards.length) this.focus(target);
    else if (event.key === "ArrowUp") document.getElementById("q").focus();
    else if (event.key === "ArrowDown") this.focus(this.cards.length - 1);
  }
}

/** Give a list the shape of most of its pictures, so that few have bars beside them; neither tall nor very wide. */
export function shape(list, hits) {
  const shapes = hits.map((hit) => hit.width / hit.height).sort((one, other) => one - other);
  const middle = Math.min(16 / 9, Math.max(1, shapes[Math.floor(shapes.length / 2)] ?? 16 / 9));
  list.style.setProperty("--stage", middle.toFixed(4));
  list.style.setProperty("--column", middle > 1.4 ? "18.5rem" : "15rem");
}
