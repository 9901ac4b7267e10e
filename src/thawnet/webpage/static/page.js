// The page: asks the predictor about each image, at most a few at a time, and shows the answers.
"use strict";

((thawnet) => {
  const AT_ONCE = 3; // images asked about at the same time
  const CLASSES = 5;
  const TRIES = 6; // for one image, while the predictor is busy
  const SPOKEN = 5; // images together of which each answer is read out; of more, their number
  const MANY = 100; // images from which on pictures are kept small, as memory is not endless
  const FEW = 6; // classes that are named at the top
  const MAP = "thawnet-map";
  const { predictor, Card, wholePercent: percent } = thawnet;
  const byId = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");

  const cards = []; // as shown: the newest first
  const queue = []; // cards that wait for their turn
  let model = null;
  let running = 0;
  let stopped = null; // the error for which nothing is asked at present
  let batch = { all: 0, done: 0, failed: 0, told: true }; // since the queue was last empty

  function speak(sentence) {
    const line = document.createElement("p");
    line.textContent = sentence;
    byId("spoken").append(line);
    while (byId("spoken").children.length > SPOKEN) byId("spoken").firstChild.remove();
  }

  // ---- the model

  function note([title, text]) {
    const paragraph = document.createElement("p");
    const strong = document.createElement("strong");
    strong.textContent = title;
    paragraph.append(strong, text);
    return paragraph;
  }

  function describe() {
    const classes = `${number.format(model.classes.length)}\u00a0classes`;
    const names = () => model.classes.flatMap((each) => [thawnet.bdi(each), ", "]).slice(0, -1);
    const name = document.createElement("strong");
    name.append(thawnet.bdi(model.name));
    const few = model.classes.length <= FEW;
    byId("model").replaceChildren(name, " · ", ...(few ? names() : [classes]));
    document.title = `${model.name} · thawnet`;
    byId("map").hidden = !model.explains;
    if (predictor.docs) {
      const link = document.createElement("a");
      link.href = predictor.docs;
      link.textContent = "How programs call this service";
      byId("api").replaceChildren(link);
    }
    const notes = [];
    if (model.accuracy) {
      const { share, least, most, images } = model.accuracy;
      notes.push([
        "Accuracy",
        `${percent(share)} of ${number.format(images)} images that were new to the network were named ` +
          `right (95\u00a0% interval ${percent(least)} to ${percent(most)}).`,
      ]);
    }
    if (model.temperature !== 1) {
      notes.push([
        "Probability",
        "Calibrated on images kept apart from training: of many answers given with 80\u00a0%, about " +
          "80 in 100 should be right. With few such images it is less exact.",
      ]);
    }
    if (model.explains) {
      notes.push([
        "Heat map",
        "Roughly where the network saw a class, bright where it saw most: choose a class in an " +
          "answer. Darkened edges were cropped away.",
      ]);
    }
    if (model.flags_unfamiliar) {
      notes.push([
        "Unlike the training data",
        "The image resembles nothing that the network learned from, whatever the probability. About " +
          "one familiar image in 20 is flagged too.",
      ]);
    }
    notes.push(["Network", `${model.backbone} at ${model.size}\u00a0px, ${classes}.`]);
    byId("reading").replaceChildren(...notes.map(note));
    byId("known").hidden = false;
    byId("known").querySelector("summary").textContent = `The ${classes} it knows`;
    byId("known").querySelector("p").replaceChildren(...names());
  }

  async function exampleButton(name) {
    const file = await predictor.example(name);
    const image = document.createElement("img");
    image.src = URL.createObjectURL(file);
    image.alt = name.replace(/\.\w+$/, "").replace(/[-_]+/g, " ");
    const button = document.createElement("button");
    button.type = "button";
    button.append(image);
    button.addEventListener("click", () => add([file]));
    return button;
  }

  function showExamples() {
    const places = model.examples.map(() => document.createElement("li"));
    byId("examples").replaceChildren(...places);
    byId("try").hidden = !places.length;
    model.examples.forEach((name, i) => {
      // An example that cannot be had is no reason to stop anything.
      exampleButton(name).then((button) => places[i].append(button), () => places[i].remove());
    });
  }

  // What a page that computes by itself has of its network, of so many bytes, while it loads; nothing
  // once it is there.
  function showLoading(got, all) {
    const [text, bar] = byId("loading").children;
    byId("loading").hidden = got === undefined;
    if (!all) return;
    const [done, whole] = [got, all].map((bytes) => (bytes / 1e6).toFixed(1));
    text.textContent = `Loading the network: ${done} of ${whole} MB`;
    bar.max = all;
    bar.value = got;
  }

  async function connect() {
    try {
      model = await predictor.describe();
    } catch (error) {
      stop(error);
      return;
    }
    describe();
    showExamples();
    resume();
  }

  // ---- going on and stopping

  function go() {
    while (model && !stopped && running < AT_ONCE && queue.length) run(queue.shift());
    showProgress();
  }

  async function run(card) {
    running += 1;
    try {
      await ask(card);
    } finally {
      running -= 1;
      go();
    }
  }

  // Ask nothing more until a person does something about it; what waits goes on waiting.
  function stop(error) {
    stopped = error;
    byId("notice-text").textContent = error.message;
    byId("token-form").hidden = !error.locked;
    byId("again").hidden = Boolean(error.locked);
    byId("start").hidden = Boolean(error.locked);
    if (!model) byId("model").replaceChildren();
    byId("notice").classList.toggle("locked", Boolean(error.locked));
    byId("notice").hidden = false;
    if (error.locked) byId("token").focus();
  }

  function resume() {
    stopped = null;
    byId("start").hidden = false;
    byId("notice").hidden = true;
    if (!model) return connect();
    predictor.ready?.().catch((error) => stopped ?? stop(error));
    go();
  }

  // ---- one image

  const seconds = (count) => new Promise((done) => setTimeout(done, 1000 * count));
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)}\u00a0MB`;

  function tooLarge({ size }) {
    const most = model?.limits?.body_bytes;
    if (!most || size <= most - 1024) return null; // the name needs some room too
    return `This file has ${megabytes(size)}; at most ${megabytes(most)} are taken.`;
  }

  async function unreadable(file) {
    try {
      await file.slice(0, 1).arrayBuffer();
      return null;
    } catch {
      return "This file cannot be read; it may have been moved or changed.";
    }
  }

  async function ask(card) {
    const reason = tooLarge(card.file) ?? (await unreadable(card.file));
    if (reason) return finish(card, { error: reason });
    card.wait("Looking…");
    await card.draw(cards.length > MANY ? 400 : 900);
    for (let tries = 1; !card.removed; tries += 1) {
      try {
        const options = { topK: CLASSES, explain: model.explains };
        const { images, milliseconds } = await predictor.predict([card.file], options);
        return finish(card, images[0], milliseconds);
      } catch (error) {
        if (card.removed) return;
        if (error.absent || error.locked) {
          queue.push(card); // should it be to blame, the others come first
          card.wait("Waiting");
          return stop(error);
        }
        if (error.seconds === undefined || tries === TRIES) {
          return finish(card, { error: error.message }, undefined, true);
        }
        card.wait(`The service is busy; trying again in ${error.seconds} s`);
        await seconds(error.seconds);
      }
    }
  }

  function finish(card, said, milliseconds, again = false) {
    if (card.removed) return;
    card.finish(said, milliseconds, again);
    if (model?.collects) card.ask(model.classes);
    if (mapsOn()) card.showMap(0);
    batch.done += 1;
    batch.failed += said.error ? 1 : 0;
    if (batch.all <= SPOKEN) speak(card.words);
    if (batch.all === 1) card.element.scrollIntoView({ block: "nearest" });
  }

  // ---- all images

  function add(files) {
    const some = Array.from(files, (file) => new Card(file, actions));
    if (!some.length) return;
    cards.unshift(...some);
    byId("gallery").prepend(...some.map((card) => card.element));
    arrange();
    some[0].element.scrollIntoView({ block: "nearest" });
    enqueue(some);
  }

  function enqueue(some) {
    if (batch.done === batch.all) batch = { all: 0, done: 0, failed: 0, told: false };
    batch.all += some.length;
    for (const card of some) {
      const reason = tooLarge(card.file);
      if (reason) finish(card, { error: reason });
      else queue.push(card);
    }
    go();
  }

  function arrange() {
    byId("results").hidden = !cards.length;
    byId("start").classList.toggle("small", cards.length > 0);
    byId("gallery").dataset.alone = cards.length === 1;
    showProgress();
  }

  function showProgress() {
    const { all, done, failed, told } = batch;
    const busy = done < all;
    byId("progress").hidden = !busy || all === 1;
    byId("progress").max = all;
    byId("progress").value = done;
    const without = cards.filter((card) => card.answer?.error).length;
    const parts = [busy ? `${done} of ${all}` : number.format(cards.length)];
    if (without) parts.push(`${without} without an answer`);
    byId("count").textContent = parts.join(", ");
    for (const id of ["copy", "download"]) byId(id).disabled = !cards.some((card) => card.answer);
    if (busy || told) return;
    batch.told = true;
    if (all > SPOKEN) speak(`${all} images done${failed ? `, ${failed} without an answer` : ""}`);
  }

  function forget(card) {
    card.removed = true;
    card.element.remove();
    if (queue.includes(card)) queue.splice(queue.indexOf(card), 1);
    if (!card.answer) batch.all -= 1;
  }

  function remove(card) {
    const place = cards.indexOf(card);
    const focused = card.element.contains(document.activeElement);
    cards.splice(place, 1);
    forget(card);
    arrange();
    const next = cards[Math.min(place, cards.length - 1)];
    if (focused) (next?.element ?? byId("files")).focus();
    speak(`${card.file.name} removed`);
  }

  function clear() {
    cards.splice(0).forEach(forget);
    arrange();
    byId("files").focus();
    speak("all images removed");
  }

  // One after the other, so that the last choice is the one that is kept.
  function teach(card, label) {
    card.taught = (card.taught ?? Promise.resolve()).then(() => send(card, label));
  }

  async function send(card, label) {
    try {
      await predictor.collect(card.file, label);
      card.told(label === "unsure" ? "Kept as none of these." : `Kept as \u2068${label}\u2069.`, true);
    } catch (error) {
      if (error.absent || error.locked) stop(error);
      card.told(error.message, false);
    }
  }

  const actions = {
    remove,
    teach,
    repeat(card) {
      card.answer = null;
      card.wait("Waiting");
      card.element.focus(); // the button is gone
      enqueue([card]);
    },
  };

  // ---- heat maps over all pictures or none; remembered, though a page opened from a file may have
  // no storage

  const mapsOn = () => byId("map").getAttribute("aria-pressed") === "true";

  function setMaps(on) {
    byId("map").setAttribute("aria-pressed", on);
    for (const card of cards) card.showMap(on ? 0 : null);
    try {
      localStorage.setItem(MAP, on ? "on" : "off");
    } catch {}
  }

  function remembered() {
    try {
      return localStorage.getItem(MAP) === "on";
    } catch {
      return false;
    }
  }

  // ---- results as JSON, in the form of the API's answers

  function results() {
    const images = cards.map((card) => card.answer).filter(Boolean);
    return `${JSON.stringify({ images }, null, 2)}\n`;
  }

  async function copy() {
    let word = "Copied";
    try {
      await navigator.clipboard.writeText(results());
    } catch {
      word = "Not allowed";
    }
    byId("copy").textContent = word;
    speak(word);
    await seconds(1.5);
    byId("copy").textContent = "Copy JSON";
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([results()], { type: "application/json" }));
    link.download = "thawnet.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  byId("promise").textContent = predictor.destination();
  byId("promise").parentElement.hidden = false;
  byId("again").addEventListener("click", resume);
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    predictor.unlock(byId("token").value.trim());
    byId("token").value = "";
    resume();
  });
  byId("map").addEventListener("click", () => setMaps(!mapsOn()));
  byId("copy").hidden = !navigator.clipboard; // only where the address is safe: https or loopback
  byId("copy").addEventListener("click", copy);
  byId("download").addEventListener("click", save);
  byId("clear").addEventListener("click", clear);
  byId("gallery").addEventListener("keydown", (event) => {
    const element = event.key === "Delete" && event.target.closest(".card");
    const card = element && cards.find((each) => each.element === element);
    if (card) remove(card);
  });
  setMaps(remembered());
  thawnet.listenForImages(add);
  predictor.loading = showLoading;
  connect();
})((window.thawnet ??= {}));
