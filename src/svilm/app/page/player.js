// A moment that plays: the video where the browser can, a row of stills where it cannot, and a noun's heat over either.

import { ask, make, query } from "./ask.js";

export const still = matchMedia("(prefers-reduced-motion: reduce)");
const unplayable = new Set(); // ids of videos that this browser gave up on

export class Player {
  /** Fill `stage` with the moment `{id, start, end, width, height}`. `told(seconds)` hears of every frame. */
  constructor(stage, moment, { controls = false, told = () => {} } = {}) {
    this.stage = stage;
    this.moment = moment;
    this.controls = controls;
    this.told = told;
    this.looping = true;
    this.wanted = false; // whether it should be moving
    this.time = (moment.start + moment.end) / 2;
    const poster = `/poster/${moment.id}?at=${this.time.toFixed(2)}`;
    this.image = make("img", { src: poster, alt: "", loading: controls ? "eager" : "lazy", decoding: "async" });
    const backdrop = make("img", { src: poster, alt: "", className: "backdrop", loading: "lazy", decoding: "async" });
    this.picture = make("span", { className: "picture" }, this.image);
    this.picture.style.setProperty("--ratio", moment.width / moment.height);
    stage.append(backdrop, this.picture);
    stage.classList.add("empty");
    this.image.addEventListener("load", () => stage.classList.remove("empty"), { once: true });
    this.image.addEventListener("error", () => this.#giveUp(backdrop));
  }

  get key() {
    return query({ video: this.moment.id, start: this.moment.start, end: this.moment.end });
  }

  async play() {
    this.wanted = true;
    if (this.broken) return;
    if (unplayable.has(this.moment.id)) return this.#playFilm();
    if (!this.video) this.#open();
    try {
      await this.video.play();
    } catch {
      // stopped before it began, or unplayable: then its error event tells
    }
  }

  stop() {
    this.wanted = false;
    this.video?.pause();
    cancelAnimationFrame(this.frame);
  }

  /** Let go of the decoder and the connection. */
  close() {
    this.stop();
    if (this.video) {
      this.video.removeAttribute("src");
      this.video.load();
      this.video.remove();
      this.video = null;
    }
    this.picture.classList.remove("moving");
  }

  seek(seconds) {
    const inside = seconds >= this.moment.start - 0.01 && seconds < this.moment.end;
    this.looping &&= inside;
    this.time = seconds;
    if (this.video) this.video.currentTime = seconds;
    this.#show(seconds);
  }

  /** Play from a place; of several calls the last one counts. */
  async go(seconds) {
    this.target = seconds;
    this.seek(seconds);
    await this.play();
    if (this.target === null) return;
    this.seek(this.target);
    this.target = null;
  }

  /** Lay a film of overlays over the picture, or take it away with null. */
  heat(film) {
    this.overlay ??= this.picture.appendChild(make("span", { className: "heat" }));
    this.heatFilm = film;
    this.picture.classList.toggle("heated", film !== null);
    if (film) {
      lay(this.overlay, film);
      this.#show(this.time);
    }
  }

  #open() {
    const { id, start, end } = this.moment;
    const video = make("video", { muted: true, playsInline: true, preload: "auto", controls: this.controls });
    video.disableRemotePlayback = true;
    const part = this.controls ? start.toFixed(3) : `${start.toFixed(3)},${end.toFixed(3)}`;
    video.src = `/media/${id}#t=${part}`;
    video.addEventListener("loadedmetadata", () => {
      if (!video.videoWidth) this.#fall(); // sound alone: no decoder for the pictures
      else if (Math.abs(video.currentTime - start) > 0.5 && this.looping) video.currentTime = start;
    });
    video.addEventListener("error", () => this.#fall());
    video.addEventListener("playing", () => this.#run());
    video.addEventListener("seeked", () => this.#show(video.currentTime));
    video.addEventListener("pause", () => {
      const atEnd = video.currentTime >= end - 0.15 && video.currentTime < end + 0.4; // the media fragment's end
      if (this.wanted && atEnd && this.looping) this.#again();
    });
    video.addEventListener("ended", () => this.wanted && this.looping && this.#again());
    this.video = video;
    this.image.after(video);
  }

  #again() {
    this.video.currentTime = this.moment.start;
    this.video.play().catch(() => {});
  }

  #run() {
    cancelAnimationFrame(this.frame);
    this.picture.classList.add("moving");
    const step = () => {
      const { video } = this;
      if (!video || video.paused) return;
      if (this.looping && video.currentTime >= this.moment.end) video.currentTime = this.moment.start;
      this.#show(video.currentTime);
      this.frame = requestAnimationFrame(step);
    };
    step();
  }

  /** The browser cannot play it: show stills instead. */
  #fall() {
    if (!this.video) return;
    unplayable.add(this.moment.id);
    this.close();
    this.#playFilm(true);
  }

  async #playFilm(wanted = this.wanted) {
    this.wanted = wanted;
    if (!this.film) {
      this.stage.classList.add("waiting");
      try {
        this.stills ??= ask(`/api/film?${this.key}`);
        const film = await this.stills;
        if (!this.film) {
          const place = make("span", { className: "film" });
          lay(place, film);
          this.image.after(place);
          this.film = { ...film, place };
        }
      } catch {
        this.broken = true; // the poster stays
        return;
      } finally {
        this.stage.classList.remove("waiting");
      }
    }
    if (!this.wanted) return;
    cancelAnimationFrame(this.frame);
    const { start, end } = this.moment;
    const began = performance.now();
    const step = (now) => {
      this.#show(start + (((now - began) / 1000) % (end - start)));
      this.frame = requestAnimationFrame(step);
    };
    if (still.matches) this.#show(start);
    else this.frame = requestAnimationFrame(step);
  }

  #show(seconds) {
    this.time = seconds;
    if (this.film) turn(this.film.place, this.film, seconds);
    if (this.heatFilm) turn(this.overlay, this.heatFilm, seconds);
    this.told(seconds);
  }

  #giveUp(backdrop) {
    this.broken = true;
    this.stage.classList.remove("empty", "waiting");
    backdrop.remove();
    this.picture.remove();
    this.stage.append(make("span", { className: "broken", textContent: "This video cannot be shown: the file is gone, or has changed since it was indexed." }));
  }
}

function lay(place, film) {
  const [left, top, right, bottom] = film.box;
  Object.assign(place.style, {
    left: `${100 * left}%`,
    top: `${100 * top}%`,
    width: `${100 * (right - left)}%`,
    height: `${100 * (bottom - top)}%`,
    backgroundImage: `url("${film.row}")`,
    backgroundSize: `${100 * film.seconds.length}% 100%`,
  });
}

function turn(place, film, seconds) {
  const count = film.seconds.length;
  let shown = 0;
  for (let number = 1; number < count; number++) {
    if (Math.abs(film.seconds[number] - seconds) < Math.abs(film.seconds[shown] - seconds)) shown = number;
  }
  place.style.backgroundPosition = `${count > 1 ? (100 * shown) / (count - 1) : 0}% 0`;
}
