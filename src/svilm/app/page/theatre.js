// One result, large: the video with its sound and controls, its time line, and what can be done with it.

import { nameOf, span } from "./ask.js";
import { Nouns } from "./nouns.js";
import { Player, still } from "./player.js";
import { Timeline } from "./timeline.js";

const at = (id) => document.getElementById(`theatre-${id}`);

export class Theatre {
  /** `page` has `moved(number | null)`, `like(hit)`, `link(number)` and `canGround`. */
  constructor(page) {
    this.page = page;
    this.dialog = document.getElementById("theatre");
    this.hits = [];
    this.nouns = new Nouns(
      () => (this.player ? [this.player] : []),
      (state, noun, trouble) => state === "trouble" && this.#note(trouble),
    );
    at("close").addEventListener("click", () => this.dialog.close());
    at("before").addEventListener("click", () => this.#turn(-1));
    at("after").addEventListener("click", () => this.#turn(1));
    at("like").addEventListener("click", () => this.page.like(this.hit));
    at("link").addEventListener("click", () => this.#copy());
    at("loop").addEventListener("change", (event) => this.#loop(event.target.checked));
    this.dialog.addEventListener("close", () => this.#leave());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    if (!navigator.clipboard) at("link").hidden = true; // browsers allow it on this machine and over https only
  }

  get hit() {
    return this.hits[this.number];
  }

  /** Show result `number` of `hits`; `lines` holds the points of time lines by video. */
  open(hits, number, words, lines) {
    Object.assign(this, { hits, number, words, lines });
    this.#fill();
    if (!this.dialog.open) {
      this.dialog.showModal();
      at("close").focus({ focusVisible: false });
    }
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  #fill() {
    const { hit } = this;
    this.nouns.clear();
    this.player?.close();
    const [folder, name] = nameOf(hit.video);
    at("title").textContent = name;
    at("meta").textContent = [folder && folder.slice(0, -1), span(hit), `similarity ${hit.score.toFixed(2)}`].filter(Boolean).join("  ·  ");
    const stage = document.createElement("div");
    stage.className = "stage";
    stage.style.setProperty("--shape", Math.max(1, hit.width / hit.height));
    at("stage").replaceChildren(stage);
    this.player = new Player(stage, hit, { controls: true, told: (seconds) => this.line.at(seconds) });
    this.line = new Timeline(hit, (seconds) => this.#seek(seconds), { ticks: true });
    this.draw();
    at("timeline").replaceChildren(this.line.element);
    at("loop").checked = true;
    at("before").disabled = this.number === 0;
    at("after").disabled = this.number === this.hits.length - 1;
    const nouns = this.page.canGround ? this.words.map((noun) => this.nouns.button(noun)) : [];
    at("nouns").replaceChildren(...(nouns.length ? ["Where is ", ...nouns] : []));
    if (!still.matches) this.player.play();
  }

  /** Draw the time line, when its points have come. */
  draw() {
    const known = this.lines.points[this.hit.id];
    if (known) this.line.draw(known, this.lines.low, this.lines.high);
  }

  #seek(seconds) {
    if (this.player.video) this.player.seek(seconds);
    else this.player.go(seconds);
    at("loop").checked = this.player.looping;
  }

  #loop(wanted) {
    this.player.looping = wanted;
    const { start, end } = this.hit;
    if (wanted && (this.player.time < start || this.player.time > end)) this.player.seek(start);
  }

  #turn(by) {
    const next = this.number + by;
    if (next < 0 || next >= this.hits.length) return;
    this.number = next;
    this.#fill();
    this.page.moved(next);
  }

  #key(event) {
    const inside = event.target.closest("video, .timeline, input");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft" && !inside) this.#turn(-1);
    else if (event.key === "ArrowRight" && !inside) this.#turn(1);
    else if (event.key === " " && !event.target.closest("button, video, input")) this.#toggle();
    else return;
    event.preventDefault();
  }

  #toggle() {
    const { video } = this.player;
    if (!video || video.paused) this.player.play();
    else this.player.stop();
  }

  async #copy() {
    const words = at("link").querySelector("span");
    await navigator.clipboard.writeText(this.page.link(this.number)).then(
      () => (words.textContent = "Copied"),
      () => (words.textContent = "Could not copy"),
    );
    setTimeout(() => (words.textContent = "Copy link"), 1600);
  }

  #note(trouble) {
    at("nouns").textContent = `${trouble.message} ${trouble.remedy}`;
  }

  #leave() {
    this.nouns.clear();
    this.player.close();
    this.player = null;
    this.page.moved(null);
  }
}
