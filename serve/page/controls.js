// The controls: each knows its message. What was touched is sent at once, and again when a new session begins.

const find = (id) => document.getElementById(id);
const MOST_PROMPTS = 4;

export class Controls {
  constructor(send) {
    this.send = send;
    this.touched = new Map();
    this.addPrompt();
    this.listen();
  }

  begin(stream) {
    const first = find("prompts").querySelector(".text");
    if (!this.touched.has("prompt") && !first.value) first.value = stream.prompt;
    if (!this.touched.has("seed")) find("seed").value = stream.seed;
    this.offerStyles(stream.styles);
    find("steps").placeholder = stream.step_list.join(", ");
    find("steps").title = `1 to ${stream.max_steps} rising numbers below ${stream.timesteps}; the first is the noisiest`;
  }

  // A session begins: it is told what the page shows.
  repeat() {
    for (const make of this.touched.values()) this.send(make(true));
  }

  use(name, make) {
    this.touched.set(name, make);
    this.send(make(false));
  }

  listen() {
    find("prompt-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.use("prompt", (first) => this.promptMessage(first));
    });
    find("add-prompt").addEventListener("click", () => this.addPrompt().querySelector(".text").focus());
    find("transition").addEventListener("input", () => {
      find("transition-value").value = Number(find("transition").value) ? `${find("transition").value} s` : "at once";
    });
    find("style").addEventListener("change", () => {
      const style = find("style").value || null;
      this.use("style", () => ({ type: "style", style }));
    });
    find("seed").addEventListener("change", () => this.useSeed());
    find("dice").addEventListener("click", () => {
      find("seed").value = Math.floor(Math.random() * 2 ** 31);
      this.useSeed();
    });
    find("strength").addEventListener("input", () => { find("strength-value").value = find("strength").value; });
    find("strength").addEventListener("change", () => {
      const strength = Number(find("strength").value);
      this.use("look", () => ({ type: "strength", strength }));
    });
    find("steps").addEventListener("change", () => {
      const step_list = find("steps").value.split(/[\s,]+/).filter(Boolean).map(Number);
      if (step_list.length) this.use("look", () => ({ type: "step_list", step_list }));
    });
    for (const id of ["similar", "threshold"]) find(id).addEventListener("change", () => this.useFilter());
    find("threshold").addEventListener("input", () => {
      find("threshold-value").value = find("threshold").value;
    });
    find("cuts").addEventListener("change", () => {
      const enabled = find("cuts").checked;
      this.use("cuts", () => ({ type: "rewarm_on_cut", enabled }));
    });
  }

  offerStyles(names) {
    for (const id of ["style-choice", "style-key"]) find(id).hidden = !names.length;
    find("style").length = 1;
    for (const name of names) find("style").add(new Option(name, name));
  }

  useSeed() {
    const seed = Math.max(0, Math.floor(Number(find("seed").value) || 0));
    find("seed").value = seed;
    this.use("seed", () => ({ type: "seed", seed }));
  }

  useFilter() {
    const [enabled, threshold] = [find("similar").checked, Number(find("threshold").value)];
    this.use("similar", () => ({ type: "similar_image_filter", enabled, threshold }));
  }

  promptMessage(first) {
    const length = Number(find("transition").value);
    const interpolation = find("interpolation").value;
    const rows = [...find("prompts").children];
    const prompts = rows.map((row) => ({
      text: row.querySelector(".text").value,
      weight: rows.length === 1 ? 1 : Number(row.querySelector(".weight").value),
    }));
    const transition = length && !first ? { length, unit: "seconds", interpolation } : null;
    return { type: "prompt", prompts, interpolation, transition };
  }

  addPrompt() {
    const row = find("prompt-template").content.cloneNode(true).firstElementChild;
    row.querySelector(".remove").addEventListener("click", () => { row.remove(); this.countPrompts(); });
    find("prompts").append(row);
    this.countPrompts();
    return row;
  }

  countPrompts() {
    find("add-prompt").hidden = find("prompts").children.length >= MOST_PROMPTS;
  }
}
