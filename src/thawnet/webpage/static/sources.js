// Where images come from: chosen, dropped (folders too), pasted, or taken with the camera.
"use strict";

((thawnet) => {
  const byId = (id) => document.getElementById(id);
  const IMAGE = /\.(jpe?g|jpe|jfif|png|gif|bmp|webp|avif|hei[cf]|hif|tiff?|p[pgbn]m)$/i; // as image/decode.py

  // ---- dropped

  const fileOf = (entry) => new Promise((done, failed) => entry.file(done, failed));

  // All image files below a folder, by name; a browser hands out at most 100 entries at a time.
  async function filesBelow(folder) {
    const reader = folder.createReader();
    const entries = [];
    let some;
    do {
      some = await new Promise((done, failed) => reader.readEntries(done, failed));
      entries.push(...some);
    } while (some.length);
    entries.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    const found = [];
    for (const entry of entries) {
      if (entry.isDirectory) found.push(...(await filesBelow(entry)));
      else if (IMAGE.test(entry.name)) found.push(await fileOf(entry));
    }
    return found;
  }

  async function dropped(transfer) {
    const files = [...transfer.files];
    // What is dropped can be asked for only now, before the first await.
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
    const folders = entries.filter((entry) => entry?.isDirectory);
    if (!folders.length) return files;
    const names = new Set(folders.map((folder) => folder.name));
    const found = files.filter((file) => !names.has(file.name));
    for (const folder of folders) found.push(...(await filesBelow(folder)));
    return found;
  }

  // ---- the camera

  async function hasCamera() {
    if (!navigator.mediaDevices?.getUserMedia) return false;
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.some((device) => device.kind === "videoinput");
  }

  function frame(video) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }

  // While the camera is on, say below its picture what is seen: where the predictor can so quickly.
  async function follow(dialog, video, line) {
    const { look } = thawnet.predictor;
    line.hidden = !look;
    line.textContent = "\u00a0";
    while (look && dialog.open && video.srcObject) {
      try {
        const { predictions, unfamiliar } = await look(video);
        const [{ class: name, probability }] = predictions;
        const share = thawnet.wholePercent(probability);
        const more = unfamiliar ? ", unlike the training data" : "";
        line.replaceChildren(thawnet.bdi(name), ` ${share}${more}`);
      } catch (error) {
        line.textContent = error.message;
        return;
      }
      await new Promise(requestAnimationFrame);
    }
  }

  async function preview(take) {
    const [dialog, video, shoot, text] = ["camera", "video", "shoot", "camera-text"].map(byId);
    let stream;
    const close = () => dialog.close();
    const trigger = async () => {
      shoot.disabled = true; // one photo, however often it is pressed
      const blob = await frame(video);
      close();
      if (blob) take(blob);
    };
    const hand = () => {
      close();
      byId("capture").click();
    };
    const end = () => {
      stream?.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
      shoot.removeEventListener("click", trigger);
      shoot.removeEventListener("click", hand);
    };
    text.hidden = byId("live").hidden = true;
    video.hidden = false;
    shoot.disabled = true;
    dialog.addEventListener("close", end, { once: true });
    byId("no-photo").addEventListener("click", close, { once: true });
    dialog.showModal();
    try {
      const wanted = { facingMode: "environment", width: { ideal: 1280 } };
      stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
      if (!dialog.open) return end(); // cancelled while the browser asked
      video.srcObject = stream;
      await video.play();
      shoot.addEventListener("click", trigger);
      shoot.disabled = false;
      shoot.focus();
      follow(dialog, video, byId("live"));
    } catch {
      video.hidden = true;
      text.hidden = false;
      text.textContent =
        "The camera cannot be used: another program has it, or this page may not use it " +
        "(the browser's settings for this address say).";
      if (!matchMedia("(pointer: coarse)").matches) return;
      text.textContent += " “Take it” opens the phone's own.";
      shoot.addEventListener("click", hand);
      shoot.disabled = false;
    }
  }

  // From now on, hand `add` the files that a person gives.
  thawnet.listenForImages = (add) => {
    const [files, capture, drop] = ["files", "capture", "drop"].map(byId);
    for (const input of [files, capture]) {
      input.addEventListener("change", () => {
        add(input.files);
        input.value = ""; // so that the same file may be chosen again
      });
    }
    document.addEventListener("paste", (event) => {
      const pasted = event.clipboardData?.files ?? [];
      if (!pasted.length) return;
      event.preventDefault();
      add(pasted);
    });
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) drop.classList.remove("over"); // it left the window
    });
    document.addEventListener("drop", async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      add(await dropped(event.dataTransfer));
    });
    let photos = 0;
    const take = (blob) => {
      photos += 1;
      add([new File([blob], `photo-${photos}.jpg`, { type: blob.type })]);
    };
    byId("photo").addEventListener("click", async () => {
      if (await hasCamera()) await preview(take);
      else capture.click(); // a telephone opens its own camera, others a list of files
    });
  };
})((window.thawnet ??= {}));
