// Pictures on canvases, and class-activation maps over them.
"use strict";

((thawnet) => {
  const SIDE = 96; // px of an enlarged map before the canvas enlarges it further
  // Inferno (matplotlib, CC0) at 0, 1/4, 1/2, 3/4 and 1: lightness rises evenly, whatever the eye.
  const COLOURS = [
    [0, 0, 4],
    [87, 16, 110],
    [188, 55, 84],
    [249, 142, 9],
    [252, 255, 164],
  ];
  const FAINT = 0.12; // opacity where a class was not seen, and
  const STRONG = 0.62; // where it was seen most
  const DIMMED = "rgba(8, 12, 18, 0.6)"; // over what the network did not see

  const MOST_PIXELS = 64e6; // of a picture that is drawn, as in image/decode.py

  function colour(share) {
    const place = share * (COLOURS.length - 1);
    const below = Math.min(Math.floor(place), COLOURS.length - 2);
    const part = place - below;
    return COLOURS[below].map((value, i) => value + part * (COLOURS[below + 1][i] - value));
  }

  // A map's value at a position in pixels of an enlarged one; bilinear between pixel centres.
  function sample(map, x, y) {
    const rows = map.length;
    const columns = map[0].length;
    const across = Math.min(Math.max(((x + 0.5) / SIDE) * columns - 0.5, 0), columns - 1);
    const down = Math.min(Math.max(((y + 0.5) / SIDE) * rows - 0.5, 0), rows - 1);
    const [left, top] = [Math.floor(across), Math.floor(down)];
    const [right, bottom] = [Math.min(left + 1, columns - 1), Math.min(top + 1, rows - 1)];
    const [u, v] = [across - left, down - top];
    const above = map[top][left] * (1 - u) + map[top][right] * u;
    const below = map[bottom][left] * (1 - u) + map[bottom][right] * u;
    return above * (1 - v) + below * v;
  }

  function enlarged(map) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    const image = context.createImageData(SIDE, SIDE);
    for (let y = 0; y < SIDE; y += 1) {
      for (let x = 0; x < SIDE; x += 1) {
        const share = sample(map, x, y);
        const opacity = FAINT + share * (STRONG - FAINT);
        image.data.set([...colour(share), 255 * opacity], 4 * (y * SIDE + x));
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  thawnet.picture = {
    // A file's {width, height} in px, upright, before its pixels are decoded; null where the browser
    // knows no such format.
    async size(file) {
      const image = new Image();
      image.src = URL.createObjectURL(file);
      try {
        await new Promise((done, failed) => Object.assign(image, { onload: done, onerror: failed }));
        return { width: image.naturalWidth, height: image.naturalHeight };
      } catch {
        return null;
      } finally {
        URL.revokeObjectURL(image.src);
      }
    },

    // Draw a file's image upright, at most `side` px a side. Returns its own size in px, null where
    // the browser cannot: it does not know the format, or the image is too large for it.
    async draw(canvas, file, side) {
      try {
        const size = await this.size(file);
        if (size.width * size.height > MOST_PIXELS) return null;
        const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
        const { width, height } = bitmap;
        const scale = Math.min(1, side / Math.max(width, height));
        canvas.width = Math.max(1, Math.round(width * scale));
        canvas.height = Math.max(1, Math.round(height * scale));
        const context = canvas.getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
        bitmap.close();
        return { width, height };
      } catch {
        return null;
      }
    },

    // Draw a map, rows of values from 0 to 1, over what the network saw: `box`, its left, top, right
    // and bottom as shares of the picture that lies on `beneath`.
    overlay(canvas, beneath, map, box) {
      const { width, height } = beneath;
      [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d");
      const [left, right] = [box[0] * width, box[2] * width];
      const [top, bottom] = [box[1] * height, box[3] * height];
      const seen = [left, top, right - left, bottom - top];
      context.fillStyle = DIMMED;
      context.fillRect(0, 0, width, height);
      context.clearRect(...seen);
      context.imageSmoothingQuality = "high";
      context.drawImage(enlarged(map), ...seen);
    },
  };
})((window.thawnet ??= {}));
