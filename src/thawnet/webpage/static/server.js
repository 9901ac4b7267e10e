// The predictor of the served page: asks the service that the page came from.
"use strict";

((thawnet) => {
  const TOKEN = "thawnet-token";
  // The service says why it refuses; what says nothing is a server in front of it.
  const UNSAID = {
    413: "A proxy in front of the service refuses images as large as this; its operator can raise the limit (nginx: client_max_body_size).",
    502: "A server in front of the service does not reach it; is it still running?",
    504: "A server in front of the service waited too long for its answer.",
  };

  // What `predict` and `describe` reject with. seconds: it may work that much later. absent: nobody
  // answers. locked: a token is needed, see `unlock`.
  class Refusal extends Error {
    constructor(sentence, more = {}) {
      super(sentence);
      Object.assign(this, more);
    }
  }

  // Browsers that keep no data of sites refuse even to be asked.
  let kept = null;
  function remembered() {
    try {
      return sessionStorage.getItem(TOKEN) ?? kept;
    } catch {
      return kept;
    }
  }

  async function ask(address, options = {}) {
    const token = remembered();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let answer;
    try {
      answer = await fetch(address, { ...options, headers });
    } catch {
      throw new Refusal("The service does not answer; is it still running?", { absent: true });
    }
    if (answer.status === 401) {
      throw new Refusal(
        token
          ? "The service refused this token."
          : "The service asks for a token; its operator has it.",
        { locked: true },
      );
    }
    return answer;
  }

  async function refusal(answer, said) {
    const sentence = said?.error ?? UNSAID[answer.status] ?? `The service answered ${answer.status}.`;
    const wait = answer.headers.get("Retry-After");
    const seconds = answer.status === 503 ? Math.max(1, Number(wait) || 1) : undefined;
    return new Refusal(sentence, { seconds });
  }

  async function json(answer) {
    try {
      return await answer.json();
    } catch {
      return null;
    }
  }

  thawnet.predictor = {
    docs: "docs", // how programs ask it

    // {name, backbone, classes, size, temperature, flags_unfamiliar, explains, accuracy, limits, examples, collects}
    async describe() {
      const answer = await ask("model");
      const said = await json(answer);
      if (!answer.ok || !said) throw await refusal(answer, said);
      return said;
    },

    // {images: [{image, predictions, unfamiliar, explanation} or {image, error}], milliseconds}
    async predict(files, { topK, explain }) {
      const form = new FormData();
      for (const file of files) form.append("image", file, file.name);
      const body = { method: "POST", body: form };
      const answer = await ask(`predict?top_k=${topK}&explain=${explain}`, body);
      const said = await json(answer);
      if (!Array.isArray(said?.images)) throw await refusal(answer, said);
      return said;
    },

    // Keep a photo as one of a class, or of none ("unsure"), where `describe` says that it collects.
    async collect(file, label) {
      const form = new FormData();
      form.append("image", file, file.name);
      const body = { method: "POST", body: form };
      const answer = await ask(`collect?class=${encodeURIComponent(label)}`, body);
      if (!answer.ok) throw await refusal(answer, await json(answer));
    },

    // One of the examples that `describe` names, as a File.
    async example(name) {
      const answer = await ask(`examples/${encodeURIComponent(name)}`);
      if (!answer.ok) throw await refusal(answer, await json(answer));
      const blob = await answer.blob();
      return new File([blob], name, { type: blob.type });
    },

    // Use a token from now on, until the tab is closed.
    // Characters that no header can hold are left out: they came with a paste.
    unlock(token) {
      kept = token.replace(/[^\x20-\x7e]/g, "").trim();
      try {
        sessionStorage.setItem(TOKEN, kept);
      } catch {
        // It is remembered until the page is left.
      }
    },

    // Where images go, for people.
    destination() {
      const host = location.hostname;
      const here = host === "localhost" || host === "[::1]" || /^127\./.test(host);
      return here ? "Nothing leaves this machine" : `Images go only to ${location.host}`;
    },
  };
})((window.thawnet ??= {}));
