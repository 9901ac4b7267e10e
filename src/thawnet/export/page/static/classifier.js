// The network as a module, for pages of one's own:
// import { classify, classes } from "./static/classifier.js";
import "./facts.js";
import "./ort.js";
import "./picture.js";
import "./exif.js";
import "./pixels.js";
import "./browser.js";

const { facts, predictor } = globalThis.thawnet;

// The names of all classes.
export const classes = facts.model.classes;

// The `top` most probable classes of an image, as [{class, probability}], the best first. image: a
// File or another Blob of an image file, or an img, canvas or video element, whose colours have to be
// this page's own or shared with it. Rejects with one sentence if it cannot be read.
export async function classify(image, { top = 5 } = {}) {
  const file = image instanceof Blob ? image : await drawn(image);
  const { images } = await predictor.predict([file], { topK: top, explain: false });
  if (images[0].error) throw new Error(images[0].error);
  return images[0].predictions;
}

async function drawn(element) {
  const bitmap = await createImageBitmap(element);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob();
}
