// From an image file to the pixels that the network takes, as thawnet's image/ does it with Pillow.
"use strict";

((thawnet) => {
  const DRAFT = 2; // a JPEG this many times as large as needed is decoded smaller; see decode.py
  const GAP = 3; // what is left to the bicubic filter after whole boxes; Pillow's reducing_gap
  const SUPPORT = 2; // of the bicubic filter, px
  const STRIP = 4e6; // px read from the browser at once

  // Keys, "Cubic convolution interpolation", 1981, with a = -0.5, as in Pillow.
  function bicubic(x) {
    const d = Math.abs(x);
    if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
    return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
  }

  // Python's: a half goes to the even neighbour.
  function rounded(value) {
    const below = Math.floor(value);
    if (value - below !== 0.5) return Math.round(value);
    return below % 2 ? below + 1 : below;
  }

  const clipped = (value) => (value <= 0 ? 0 : value >= 255 ? 255 : Math.floor(value + 0.5));

  // For `count` of `all` pixels from `first` on, along one side: where each begins to look, and its
  // weights. `span`: px, maybe broken, that the whole side covers of the `length` there are.
  function filters(length, span, all, first, count) {
    const scale = span / all;
    const wide = Math.max(scale, 1);
    return Array.from({ length: count }, (_, i) => {
      const centre = (first + i + 0.5) * scale;
      const from = Math.max(0, Math.trunc(centre - SUPPORT * wide + 0.5));
      const to = Math.min(length, Math.trunc(centre + SUPPORT * wide + 0.5));
      const weights = new Float64Array(to - from);
      let sum = 0;
      for (let k = 0; k < weights.length; k += 1) {
        weights[k] = bicubic((k + from - centre + 0.5) / wide);
        sum += weights[k];
      }
      return { from, weights: weights.map((weight) => weight / sum) };
    });
  }

  // Filter rows (RGB, 8 bits) along x: {width, height, data} of `across.length` columns.
  function filterRows({ width, height, data }, across) {
    const found = new Uint8Array(3 * across.length * height);
    let place = 0;
    for (let y = 0; y < height; y += 1) {
      for (const { from, weights } of across) {
        let [red, green, blue] = [0, 0, 0];
        let at = 3 * (y * width + from);
        for (let k = 0; k < weights.length; k += 1, at += 3) {
          const weight = weights[k];
          red += weight * data[at];
          green += weight * data[at + 1];
          blue += weight * data[at + 2];
        }
        found[place] = clipped(red);
        found[place + 1] = clipped(green);
        found[place + 2] = clipped(blue);
        place += 3;
      }
    }
    return { width: across.length, height, data: found };
  }

  function filterColumns({ width, data }, down) {
    const row = 3 * width;
    const found = new Uint8Array(row * down.length);
    down.forEach(({ from, weights }, y) => {
      for (let x = 0; x < row; x += 1) {
        let sum = 0;
        for (let k = 0, at = from * row + x; k < weights.length; k += 1, at += row) {
          sum += weights[k] * data[at];
        }
        found[y * row + x] = clipped(sum);
      }
    });
    return { width, height: down.length, data: found };
  }

  // The ends of boxes of `box` px along a side: the last one is smaller, or, `reversed`, the first.
  function ends(length, box, reversed) {
    const count = Math.ceil(length / box);
    const shift = reversed ? count * box - length : 0;
    return Array.from({ length: count + 1 }, (_, i) =>
      Math.min(length, Math.max(0, i * box - shift)),
    );
  }

  // Means of the boxes between some ends. data: rows of `bytes` a pixel, red, green and blue first.
  function boxed({ width, data }, across, down, bytes) {
    const [columns, rows] = [across.length - 1, down.length - 1];
    const found = new Uint8Array(3 * columns * rows);
    for (let row = 0; row < rows; row += 1) {
      const [top, bottom] = [down[row], down[row + 1]];
      for (let column = 0; column < columns; column += 1) {
        const [left, right] = [across[column], across[column + 1]];
        let [red, green, blue] = [0, 0, 0];
        for (let y = top; y < bottom; y += 1) {
          let at = bytes * (y * width + left);
          for (let x = left; x < right; x += 1, at += bytes) {
            red += data[at];
            green += data[at + 1];
            blue += data[at + 2];
          }
        }
        const pixels = (bottom - top) * (right - left);
        const share = Math.trunc(Math.fround(2 ** 24 / pixels)); // Pillow's, in whole numbers
        const mean = (sum) => Math.floor(((sum + (pixels >> 1)) * share) / 2 ** 24);
        const place = 3 * (row * columns + column);
        found[place] = mean(red);
        found[place + 1] = mean(green);
        found[place + 2] = mean(blue);
      }
    }
    return { width: columns, height: rows, data: found };
  }

  // Read a bitmap over white, reduced by whole boxes; in strips, since a canvas has its limits.
  function read(bitmap, across, down) {
    const { width } = bitmap;
    const [columns, rows] = [across.length - 1, down.length - 1];
    const data = new Uint8Array(3 * columns * rows);
    const box = Math.max(...down.map((end, i) => end - (down[i - 1] ?? 0)));
    const most = Math.max(1, Math.floor(STRIP / width / box)); // boxes at once
    const canvas = new OffscreenCanvas(width, Math.min(bitmap.height, most * box));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    for (let first = 0; first < rows; first += most) {
      const some = down.slice(first, first + most + 1);
      const top = some[0];
      const height = some.at(-1) - top;
      context.fillRect(0, 0, width, height);
      context.drawImage(bitmap, 0, top, width, height, 0, 0, width, height);
      const strip = context.getImageData(0, 0, width, height);
      const inside = some.map((end) => end - top);
      data.set(boxed(strip, across, inside, 4).data, 3 * columns * first);
    }
    return { width: columns, height: rows, data };
  }

  // The box by which a JPEG decoder reduces: what Pillow's `draft` chooses.
  function draft({ width, height }, side) {
    const scale = Math.floor(Math.min(width, height) / (DRAFT * side));
    return [8, 4, 2].find((box) => scale >= box) ?? 1;
  }

  // The width and height that an image is resized to.
  function target({ width, height }, { side, fit }) {
    if (fit === "squash") return [side, side];
    const [least, one] =
      fit === "pad" ? [1, Math.max(width, height)] : [side, Math.min(width, height)];
    return [width, height].map((length) => Math.max(least, rounded(length * (side / one))));
  }

  // A resized image, RGB, in the middle of a square of one colour.
  function padded({ width, height, data }, { side, fill }) {
    const square = new Uint8Array(3 * side * side);
    for (let i = 0; i < square.length; i += 1) square[i] = fill[i % 3];
    const [left, top] = [width, height].map((length) => Math.floor((side - length) / 2));
    for (let y = 0; y < height; y += 1) {
      const row = data.subarray(3 * y * width, 3 * (y + 1) * width);
      square.set(row, 3 * ((top + y) * side + left));
    }
    return square;
  }

  // The square that the network takes of an image, RGB.
  function fitted(image, spec) {
    const { side, crop, fit } = spec;
    const all = target(image, spec);
    if (fit === "pad") return padded(resized(image, all, [0, 0], all), spec);
    // In the store's two steps: first the square that it keeps, of that the crop.
    const cut = Math.floor((side - crop) / 2);
    const first = all.map((length) => Math.floor((length - side) / 2) + cut);
    return resized(image, all, first, [crop, crop]).data;
  }

  // Of an image resized to `all`, width and height, `some` columns and rows from `first` on.
  function resized(image, all, [left, top], some) {
    if (image.width === all[0] && image.height === all[1]) {
      const pick = (first, count) => Array.from({ length: count }, (_, i) => one(first + i));
      return filterColumns(filterRows(image, pick(left, some[0])), pick(top, some[1]));
    }
    const [across, down] = [image.width / all[0], image.height / all[1]].map(
      (scale) => Math.trunc(scale / GAP) || 1,
    );
    const small =
      across > 1 || down > 1
        ? boxed(image, ends(image.width, across), ends(image.height, down), 3)
        : image;
    const columns = filters(small.width, image.width / across, all[0], left, some[0]);
    const rows = filters(small.height, image.height / down, all[1], top, some[1]);
    return filterColumns(filterRows(small, columns), rows);
  }

  // The largest level, 0 to 255, of any colour of any pixel.
  function brightest(bitmap) {
    const rows = Math.max(1, Math.floor(STRIP / bitmap.width));
    const canvas = new OffscreenCanvas(bitmap.width, Math.min(bitmap.height, rows));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    let most = 0;
    for (let top = 0; top < bitmap.height; top += rows) {
      context.drawImage(bitmap, 0, -top);
      const { data } = context.getImageData(0, 0, bitmap.width, Math.min(rows, bitmap.height - top));
      for (let at = 0; at < data.length; at += 4) {
        most = Math.max(most, data[at], data[at + 1], data[at + 2]);
      }
    }
    return most;
  }

  const one = (from) => ({ from, weights: Float64Array.of(1) });

  thawnet.pixels = {
    brightest,

    // What the network sees of a bitmap or a frame: crop x crop x 3 levels of 8 bits, row by row.
    // turned: EXIF's orientation of a JPEG, null of all else: its decoder's boxes begin where the
    // file does. spec: {side, crop, fit, fill}, see image/preprocess.py.
    square(bitmap, turned, spec) {
      const box = turned === null ? 1 : draft(bitmap, spec.side);
      const across = ends(bitmap.width, box, [2, 3, 6, 7].includes(turned));
      const down = ends(bitmap.height, box, [3, 4, 7, 8].includes(turned));
      return fitted(read(bitmap, across, down), spec);
    },

    // Where that lies: left, top, right and bottom as shares of the image.
    box({ width, height }, { side, crop, fit }) {
      if (fit === "squash") return [0, 0, 1, 1];
      const whole = fit === "pad" ? Math.max(width, height) : Math.min(width, height);
      const seen = (whole * crop) / side;
      const [across, down] = [seen / width, seen / height];
      return [(1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2];
    },
  };
})((window.thawnet ??= {}));
