// The graphics card of a browser that has WebGPU: taken if it says what the processor does, sooner.
"use strict";

((thawnet) => {
  const OFF = 0.002; // of the largest value of an output, by which the two may differ
  const RUNS = 5; // of each, to see which is sooner

  // Whether a card may be there; nothing is asked for before. A fallback adapter is the processor
  // again; WebAssembly.Suspending is JSPI, by which the runtime waits for the card.
  async function there() {
    if (!navigator.gpu || !WebAssembly.Suspending || navigator.connection?.saveData) return false;
    const adapter = await navigator.gpu.requestAdapter();
    return Boolean(adapter) && !adapter.info.isFallbackAdapter;
  }

  async function opened(onnx, runtime) {
    const [ort, wasmBinary] = await Promise.all([import("./ort-gpu.js"), runtime()]);
    Object.assign(ort.env.wasm, { wasmBinary, numThreads: 1 });
    const options = {
      executionProviders: ["webgpu"],
      logSeverityLevel: 3, // it warns of shapes, which the processor works out
    };
    return { ort, session: await ort.InferenceSession.create(onnx, options) };
  }

  function agree(found, wanted) {
    return Object.entries(wanted).every(([name, { data }]) => {
      const most = data.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
      // So written that NaN is never near.
      return data.every((value, i) => Math.abs(found[name].data[i] - value) <= OFF * most);
    });
  }

  async function sooner(card, { processor, computing, inTurn }) {
    const found = await computing(card); // the first time, which compiles
    if (!agree(found, await inTurn(() => computing(processor)))) return false;
    const times = { card: [], processor: [] };
    for (let i = 0; i < RUNS; i += 1) {
      times.card.push(await inTurn(() => timed(() => computing(card))));
      times.processor.push(await inTurn(() => timed(() => computing(processor))));
    }
    return median(times.card) < median(times.processor);
  }

  async function timed(work) {
    const started = performance.now();
    await work();
    return performance.now() - started;
  }

  const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];

  thawnet.graphics = {
    // The card as {ort, session}, or null: the processor is better. processor: it, likewise. onnx:
    // the network. runtime: gives the WebAssembly. computing: has one of the two compute. inTurn:
    // runs a function when nothing else is computed. Rejects if the card cannot be opened.
    async better({ onnx, runtime, ...both }) {
      if (!(await there())) return null;
      const card = await opened(onnx, runtime);
      if (await sooner(card, both)) return card;
      await card.session.release();
      return null;
    },
  };
})((window.thawnet ??= {}));
