// Requests to the server: JSON, and a queue of images from which requests can be cancelled.

/** The server refused the request, with this HTTP `status`. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server could not be reached, or its answer did not come whole. */
export class Unreachable extends Error {}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("no answer");
  }
  let content = null;
  try {
    content = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (answer.ok) throw new Unreachable("the answer broke off");
  }
  if (answer.ok) return content;
  if (answer.status >= 502 && answer.status <= 504) throw new Unreachable(`status ${answer.status}`);
  throw new Refused(answer.status, reason(content, answer.status));
}

function reason(content, status) {
  const text = content && (content.error ?? content.detail);
  return typeof text === "string" ? text : `the server answered ${status}`;
}

export function get(path, signal) {
  return request(path, { signal });
}

export function post(path, body) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
}

/** `?a=1&b=2` of the values that are neither null nor empty. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/**
 * Images in turn, `parallel` at a time so that labels always find a free connection.
 * A request that is cancelled before its turn never reaches the server.
 */
export class ImageQueue {
  constructor(parallel, keep, decode, release) {
    Object.assign(this, { parallel, keep, decode, release });
    this.kept = new Map(); // url -> decoded, oldest first
    this.waiting = new Map(); // url -> [done, ...]
    this.running = new Map(); // url -> {abort, done: [...]}
  }

  /** The decoded image where it is loaded. */
  cached(url) {
    const image = this.kept.get(url);
    if (image !== undefined) {
      this.kept.delete(url);
      this.kept.set(url, image);
    }
    return image;
  }

  /** Ask for an image: done(image, error) comes once. Returns a function that cancels it. */
  request(url, done) {
    const image = this.cached(url);
    if (image !== undefined) {
      done(image, null);
      return () => {};
    }
    const running = this.running.get(url);
    if (running) running.done.push(done);
    else this.waiting.set(url, [...(this.waiting.get(url) ?? []), done]);
    this.next();
    return () => this.cancel(url, done);
  }

  cancel(url, done) {
    const without = (list) => list.filter((other) => other !== done);
    if (this.waiting.has(url)) {
      const left = without(this.waiting.get(url));
      if (left.length) this.waiting.set(url, left);
      else this.waiting.delete(url);
    }
    const running = this.running.get(url);
    if (running) {
      running.done = without(running.done);
      if (!running.done.length) running.abort.abort();
    }
  }

  next() {
    for (const [url, done] of this.waiting) {
      if (this.running.size >= this.parallel) return;
      this.waiting.delete(url);
      this.fetch(url, done);
    }
  }

  async fetch(url, done) {
    const job = { abort: new AbortController(), done };
    this.running.set(url, job);
    let image = null;
    let failure = null;
    try {
      const answer = await fetch(url, { credentials: "same-origin", signal: job.abort.signal });
      if (!answer.ok) throw new Refused(answer.status, await problem(answer));
      image = await this.decode(await answer.blob());
      this.keepOne(url, image);
    } catch (error) {
      failure = error;
    }
    this.running.delete(url);
    this.next();
    if (failure?.name !== "AbortError") for (const each of job.done) each(image, failure);
    else if (job.done.length) this.waiting.set(url, job.done); // asked for again while it was given up
    this.next();
  }

  keepOne(url, image) {
    this.kept.set(url, image);
    for (const [oldest, old] of this.kept) {
      if (this.kept.size <= this.keep) return;
      this.kept.delete(oldest);
      this.release(old);
    }
  }
}

async function problem(answer) {
  try {
    return reason(await answer.json(), answer.status);
  } catch {
    return `the server answered ${answer.status}`;
  }
}
