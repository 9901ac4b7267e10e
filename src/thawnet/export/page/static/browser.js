// The predictor of a page that needs no server: computes here, with ONNX Runtime Web.
"use strict";

((thawnet) => {
  // A module brings its facts along; a page has them in an element.
  thawnet.facts ??= JSON.parse(document.getElementById("facts").textContent);
  const { model, assets, sizes } = thawnet.facts;
  const { picture, pixels, orientation, graphics } = thawnet;
  const page = new Promise((done) => {
    if (document.readyState !== "loading") done();
    else document.addEventListener("DOMContentLoaded", done, { once: true });
  });

  class Refusal extends Error {
    constructor(sentence, more = {}) {
      super(sentence);
      Object.assign(this, more);
    }
  }

  // ---- what the page is made of: beside it, or inside it

  // The bytes of an answer; `arrived` hears how many more there are each time.
  async function received(answer, arrived) {
    const reader = answer.body.getReader();
    const parts = [];
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
      parts.push(value);
      arrived?.(value.length);
    }
  }

  async function content(name, arrived) {
    await page; // what stands inside it comes last
    const inside = document.getElementById(`asset:${name}`);
    if (inside) {
      const letters = atob(inside.textContent.trim());
      return Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    }
    if (location.protocol === "file:") {
      throw new Refusal(
        "A browser opens no folder of files by itself: put this folder on a web host, or export " +
          "with --single-file.",
        { absent: true },
      );
    }
    try {
      const answer = await fetch(assets[name]);
      if (answer.ok) return await received(answer, arrived);
    } catch {
      // no connection, or one that broke
    }
    throw new Refusal(`A part of this page cannot be had (${assets[name]}).`, { absent: true });
  }

  async function unpacked(name, arrived) {
    const bytes = await content(name, arrived);
    if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes; // the host had it unpacked on the way
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // float16 to float32: sign, 5 bits of exponent, 10 of fraction (IEEE 754).
  function single(half) {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (!exponent) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  // Fetch the parts, and tell the page how far that is.
  async function fetched(names) {
    const all = names.reduce((sum, name) => sum + (sizes[name] ?? 0), 0);
    let got = 0;
    let failed = false; // what else is on its way is news no more
    const arrived = (bytes) => {
      got = Math.min(got + bytes, all); // a host may have unpacked them on the way
      if (!failed) thawnet.predictor.loading?.(got, all);
    };
    arrived(0);
    try {
      return await Promise.all(names.map((name) => unpacked(name, arrived)));
    } catch (error) {
      failed = true;
      throw error;
    }
  }

  async function opened() {
    const parts = ["runtime", "network", ...(model.explains ? ["weights"] : [])];
    const [runtime, network, weights] = await fetched(parts);
    const { ort } = thawnet;
    if (!ort) throw new Refusal("This browser is too old to compute here.", { absent: true });
    ort.env.wasm.wasmBinary = runtime;
    ort.env.wasm.numThreads = threads();
    const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
    const halves = weights && new Uint16Array(weights.buffer);
    return {
      processor: { ort, session },
      onnx: network,
      weights: halves && Float32Array.from(halves, single),
    };
  }

  // Threads share memory, which browsers allow a page that is isolated (by headers of its host); and
  // they open the runtime's script, which has no address where it stands inside a page.
  function threads() {
    const several = window.crossOriginIsolated && assets.runtime;
    return several ? Math.min(4, navigator.hardwareConcurrency) : 1;
  }

  // From the second visit on the page needs no network; a page in one file never did.
  function keep() {
    if (assets.runtime && location.protocol !== "file:") {
      navigator.serviceWorker?.register("offline.js").catch(() => {}); // a host without https has none
    }
  }

  let opening = null;
  let turn = Promise.resolve();
  let card = null; // as `processor`, once the graphics card has shown that it is the better one
  let tried = false;

  function network() {
    opening ??= opened()
      .catch((error) => {
        opening = null; // so that it can be tried again
        if (error instanceof Refusal) throw error;
        throw new Refusal(`The network cannot be computed here (${error.message}).`, {
          absent: true,
        });
      })
      .finally(() => thawnet.predictor.loading?.());
    return opening;
  }

  // ---- one image

  function outputs(explain) {
    const names = ["logits"];
    if (model.flags_unfamiliar) names.push("unfamiliarity");
    if (explain && model.explains) names.push("feature_map");
    return names;
  }

  // One thing at a time: a session computes no two, and what is timed has the machine to itself.
  function inTurn(work) {
    const mine = turn.then(work);
    turn = mine.catch(() => {});
    return mine;
  }

  async function run({ ort, session }, square, explain) {
    const side = model.preprocess.crop;
    const images = new ort.Tensor("uint8", square, [1, side, side, 3]);
    return session.run({ images }, outputs(explain));
  }

  // Where it is computed now. A card that fails, as after a crash of its driver, is left alone.
  async function fastest(processor, square, explain) {
    if (card) {
      try {
        const found = await run(card, square, explain);
        if (found.logits.data.every(Number.isFinite)) return found;
      } catch {
        // the processor can
      }
      card = null;
    }
    return run(processor, square, explain);
  }

  // Once, after the first answer, so that nobody waits for it.
  async function tryCard({ processor, onnx }, square) {
    if (tried || !graphics) return;
    tried = true;
    const runtime = () => unpacked("runtime-gpu");
    const computing = (engine) => run(engine, square, true);
    try {
      card = await graphics.better({ processor, onnx, runtime, computing, inTurn });
    } catch {
      // there is nothing to say: the processor goes on
    }
  }

  async function computed(square, explain) {
    const known = await network();
    const found = await inTurn(() => fastest(known.processor, square, explain));
    tryCard(known, square);
    return found;
  }

  function shares(logits) {
    const most = Math.max(...logits);
    const powers = Array.from(logits, (logit) => Math.exp((logit - most) / model.temperature));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  // Where a class was seen, rows of values from 0 to 1; see bundle/class_maps.py.
  function classMap(map, weights, place) {
    const [, channels, rows, columns] = map.dims;
    const sums = new Float64Array(rows * columns);
    for (let channel = 0; channel < channels; channel += 1) {
      const weight = weights[place * channels + channel];
      const start = channel * sums.length;
      for (let i = 0; i < sums.length; i += 1) sums[i] += weight * map.data[start + i];
    }
    const most = Math.max(...sums);
    const found = sums.map((sum) => (most > 0 ? Math.max(sum, 0) / most : 0));
    return Array.from({ length: rows }, (_, row) =>
      Array.from(found.subarray(row * columns, (row + 1) * columns)),
    );
  }

  async function answer(bitmap, turned, topK, explain) {
    const square = pixels.square(bitmap, turned, model.preprocess);
    const found = await computed(square, explain);
    const logits = found.logits.data;
    const probabilities = shares(logits);
    const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    const places = order.slice(0, topK);
    const said = {
      predictions: places.map((place) => ({
        class: model.classes[place],
        probability: Number(probabilities[place].toPrecision(6)),
      })),
    };
    said.unfamiliar = model.flags_unfamiliar ? found.unfamiliarity.data[0] > model.above : null;
    if (found.feature_map) {
      const { weights } = await network();
      const box = pixels.box(bitmap, model.preprocess);
      const maps = places.map((place) => classMap(found.feature_map, weights, place));
      said.explanation = { box, maps };
    }
    return said;
  }

  async function unknown(file) {
    const head = await file.slice(4, 32).text(); // of a file in boxes, as HEIC and AVIF are
    return /^ftyp(?!avif).*(hei[cxms]|hev[cxms]|mif1|msf1)/s.test(head)
      ? "HEIC, which this browser does not know; save the photo as JPEG"
      : "not an image in a format that this browser knows, or damaged";
  }

  // Bytes to pixels, upright, in the colours of sRGB.
  async function decoded(file) {
    const size = await picture.size(file);
    if (!size) throw new Refusal(await unknown(file));
    const { width, height } = size;
    if (width * height > model.limits.pixels) {
      const most = new Intl.NumberFormat("en").format(model.limits.pixels);
      throw new Refusal(`${width} x ${height} pixels are too many; at most ${most} are decoded`);
    }
    const { side, fit } = model.preprocess;
    const long = Math.max(width, height) / Math.min(width, height);
    if (fit === "crop" && long * side ** 2 > model.limits.pixels) {
      throw new Refusal(`${width} x ${height} pixels are too narrow`);
    }
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, {
        imageOrientation: "from-image",
        premultiplyAlpha: "none",
      });
    } catch {
      throw new Refusal("damaged, or more than this browser can decode");
    }
    const least = await leastLevel(file);
    if (least && pixels.brightest(bitmap) < least) {
      bitmap.close();
      throw new Refusal(
        "its 16 bits use the lower ones only, which a browser shows nearly black; save it with 8 bits",
      );
    }
    return bitmap;
  }

  // The level, 0 to 255, that the brightest pixel of a PNG of 16 bits has to reach, 0 of all else. A
  // browser keeps the upper 8: where they say too little; see image/decode.py.
  async function leastLevel(file) {
    const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
    const [bits, colours] = [head[24], head[25]];
    if (head[0] !== 0x89 || head[1] !== 0x50 || bits !== 16) return 0;
    if (colours !== 0) return 17; // which is not scaled
    const used = model.preprocess.bits;
    return used > 0 && used < 16 ? 256 : 65; // grey: by what the training images used, or its own
  }

  async function answerFile(file, topK, explain) {
    let bitmap;
    try {
      bitmap = await decoded(file);
    } catch (error) {
      return { image: file.name, error: error.message };
    }
    try {
      const turned = await orientation(file);
      return { image: file.name, ...(await answer(bitmap, turned, topK, explain)) };
    } finally {
      bitmap.close();
    }
  }

  thawnet.predictor = {
    // {name, backbone, classes, size, temperature, flags_unfamiliar, explains, accuracy, limits, examples}
    async describe() {
      return model;
    },

    // Wait until images can be answered, while a person looks around.
    async ready() {
      await network();
      keep();
    },

    // {images: [{image, predictions, unfamiliar, explanation} or {image, error}], milliseconds}
    async predict(files, { topK, explain }) {
      await network();
      const started = performance.now();
      const images = [];
      for (const file of files) images.push(await answerFile(file, topK, explain));
      return { images, milliseconds: performance.now() - started };
    },

    // What is seen in a video now: {predictions, unfamiliar}.
    async look(video) {
      const frame = await createImageBitmap(video);
      try {
        return await answer(frame, null, 1, false);
      } finally {
        frame.close();
      }
    },

    // One of the examples that `describe` names, as a File.
    async example(name) {
      return new File([await content(name)], name, { type: "image/jpeg" });
    },

    // Where images go, for people.
    destination: () => "Nothing leaves this browser",
  };
})((window.thawnet ??= {}));
