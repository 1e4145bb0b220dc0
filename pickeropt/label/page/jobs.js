// Suggestions, fine-tuning and pruning: started here, run by the server, shown while they run.

import { post } from "./api.js";

const NAMES = { suggest: "Suggestions", finetune: "Fine-tuning", prune: "Pruning" };

export class Jobs {
  /** buttons: {suggest, finetune, prune}; onDone(job, own) when one has succeeded, `own`: started by this page. */
  constructor(store, bar, buttons, onDone) {
    Object.assign(this, { store, bar, buttons, onDone });
    this.begun = null; // the answer to this page's last beginning
    store.addEventListener("restarted", () => (this.begun = null));
    this.text = bar.querySelector("#job-text");
    this.progress = bar.querySelector("progress");
    this.stop = bar.querySelector("button");
    buttons.suggest.addEventListener("click", () => this.begin("suggest", { count: 20 }));
    buttons.finetune.addEventListener("click", () => this.begin("finetune", {}));
    buttons.prune.addEventListener("click", () => this.begin("prune", { threshold: store.threshold ?? 0.5 }));
    this.stop.addEventListener("click", () => this.end());
    for (const name of ["state", "job"]) store.addEventListener(name, () => this.show());
    store.addEventListener("finished", ({ detail }) => this.onFinished(detail));
  }

  async begin(kind, body) {
    if (this.store.state.job?.state === "running") return this.store.notify("A job is already running.");
    if (this.store.outbox.size) return this.store.notify("Labels are still being sent; try again in a moment.");
    try {
      this.begun = post(`/api/${kind}`, body);
      const { job } = await this.begun;
      this.store.state.job = job ?? { kind, what: "", done: 0, total: null, state: "running" };
      this.store.notify(`${NAMES[kind]} began.`);
      this.show();
      this.store.poll();
    } catch (error) {
      this.store.notify(`${NAMES[kind]}: ${error.message}`, "fault");
    }
    return undefined;
  }

  async end() {
    try {
      await post("/api/job/stop");
      this.store.poll();
    } catch (error) {
      this.store.notify(error.message, "fault");
    }
  }

  show() {
    const { job } = this.store.state;
    const running = job?.state === "running";
    this.bar.hidden = !running;
    for (const button of Object.values(this.buttons)) button.disabled = running;
    if (!running) return;
    const { kind, what, done, total } = job;
    const count = total ? `, ${done} of ${total}` : "";
    this.text.textContent = `${NAMES[kind] ?? kind}${what ? `: ${what}` : ""}${count}`;
    if (total) Object.assign(this.progress, { max: total, value: done });
    else this.progress.removeAttribute("value");
  }

  async onFinished(job) {
    if (!job) return;
    const own = await this.begun?.catch(() => null);
    const name = NAMES[job.kind] ?? job.kind;
    if (job.state === "failed") {
      this.store.notify(`${name} failed: ${job.error ?? "no reason was given"}`, "fault");
      return;
    }
    this.store.notify(job.text ? `${name}: ${job.text}` : `${name} ended.`);
    this.onDone(job, own?.job?.number === job.number);
  }
}
