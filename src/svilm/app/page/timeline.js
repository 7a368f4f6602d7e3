// The similarity along a video as bars, one per moment; a slider to go to any of them.

import { clock, make } from "./ask.js";

const SVG = "http://www.w3.org/2000/svg";
const HIGH = 100;
const WIDE = 1000;

export class Timeline {
  /** `moment` is the one found; `went(seconds)` is called when another place is chosen. */
  constructor(moment, went, { ticks = false } = {}) {
    this.moment = moment;
    this.went = went;
    this.points = [[moment.start, moment.end, 0]];
    this.time = moment.start;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.head = make("span", { className: "head" });
    this.bar = make("div", { className: "timeline", role: "slider", tabIndex: 0 }, this.svg, this.head);
    const about = { label: "Place in the video", valuemin: 0, valuemax: moment.duration.toFixed(1) };
    for (const [name, value] of Object.entries(about)) this.bar.setAttribute(`aria-${name}`, value);
    this.element = make("div", {}, this.bar);
    if (ticks) this.element.append(this.#ticks());
    this.draw(null, 0, 1);
    this.at(moment.start);
    this.bar.classList.remove("running");
    this.bar.addEventListener("pointerdown", (event) => this.#press(event));
    this.bar.addEventListener("pointermove", (event) => this.#hover(event));
    this.bar.addEventListener("pointerleave", () => this.tip?.remove());
    this.bar.addEventListener("keydown", (event) => this.#key(event));
  }

  /** `points` are [start, end, score]; `low` and `high` are the scores of the lowest and the highest bar. */
  draw(points, low, high) {
    const { duration, start, end } = this.moment;
    this.points = points ?? [[start, end, high]];
    const shape = (chosen) =>
      chosen
        .map(([from, to, score]) => {
          const left = (WIDE * from) / duration;
          const gap = Math.min(2.5, (0.25 * WIDE * (to - from)) / duration);
          const right = Math.max(left + 1, (WIDE * Math.min(to, duration)) / duration - gap);
          const share = high > low ? Math.min(1, Math.max(0, (score - low) / (high - low))) : 1;
          const top = HIGH - 9 - (HIGH - 12) * (0.06 + 0.94 * share);
          return `M${left.toFixed(1)} ${HIGH - 9}V${top.toFixed(1)}H${right.toFixed(1)}V${HIGH - 9}Z`;
        })
        .join("");
    const alone = this.points.length === 1; // a bar by itself compares nothing
    this.bar.classList.toggle("alone", alone);
    const inside = ([from, to]) => from < end - 0.01 && to > start + 0.01;
    const ground = `M0 ${HIGH}V${HIGH - 5}H${WIDE}V${HIGH}Z`;
    const place = `M${(WIDE * start) / duration} ${HIGH}V${HIGH - 5}H${Math.max((WIDE * end) / duration, (WIDE * start) / duration + 4)}V${HIGH}Z`;
    const parts = [
      ["ground", ground],
      ["bars", points && !alone ? shape(points.filter((point) => !inside(point))) : ""],
      ["here", (points && !alone ? shape(points.filter(inside)) : "") + place],
    ];
    this.svg.replaceChildren(
      ...parts.map(([name, path]) => {
        const element = document.createElementNS(SVG, "path");
        element.setAttribute("class", name);
        element.setAttribute("d", path);
        return element;
      }),
    );
  }

  /** The video is at `seconds`. */
  at(seconds) {
    this.time = seconds;
    this.bar.classList.add("running");
    this.head.style.left = `${Math.min(100, (100 * seconds) / this.moment.duration)}%`;
    const said = clock(seconds);
    if (said !== this.said) {
      this.said = said;
      this.bar.setAttribute("aria-valuenow", seconds.toFixed(1));
      this.bar.setAttribute("aria-valuetext", `${said} of ${clock(this.moment.duration)}`);
    }
  }

  #secondsAt(event) {
    const box = this.bar.getBoundingClientRect();
    const share = Math.min(0.9999, Math.max(0, (event.clientX - box.left) / box.width));
    return share * this.moment.duration;
  }

  #go(seconds) {
    const target = Math.min(Math.max(0, seconds), Math.max(0, this.moment.duration - 0.05));
    this.at(target);
    this.went(target);
  }

  #press(event) {
    if (event.button) return;
    event.preventDefault();
    this.bar.focus({ preventScroll: true });
    this.bar.setPointerCapture(event.pointerId);
    this.#go(this.#secondsAt(event));
  }

  #hover(event) {
    const seconds = this.#secondsAt(event);
    if (event.buttons & 1 && this.bar.hasPointerCapture(event.pointerId)) this.#go(seconds);
    if (event.pointerType !== "mouse") return;
    const found = this.points.find(([from, to]) => from <= seconds && seconds < to);
    this.tip ??= make("span", { className: "tip" });
    this.tip.textContent = clock(seconds) + (found && this.points.length > 1 ? ` · ${found[2].toFixed(2)}` : "");
    this.tip.style.left = `${Math.min(94, Math.max(6, (100 * seconds) / this.moment.duration))}%`;
    this.bar.append(this.tip);
  }

  #key(event) {
    const starts = this.points.map(([from]) => from);
    const targets = {
      ArrowLeft: starts.findLast((start) => start < this.time - 0.3) ?? 0,
      ArrowRight: starts.find((start) => start > this.time + 0.05) ?? this.time,
      Home: 0,
      End: this.moment.duration,
      Enter: this.time,
    };
    if (!(event.key in targets) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.#go(targets[event.key]);
  }

  #ticks() {
    const { duration } = this.moment;
    const count = innerWidth < 600 ? 4 : 7;
    const ticks = make("div", { className: "ticks", ariaHidden: "true" });
    for (let number = 0; number < count; number++) {
      const seconds = (duration * number) / (count - 1);
      const tick = make("span", { textContent: clock(seconds, duration < 12) });
      tick.style.left = `${(100 * number) / (count - 1)}%`;
      ticks.append(tick);
    }
    return ticks;
  }
}
