// How a JPEG lies in its file. The browser turns it; only where its boxes begin follows from that.
"use strict";

((thawnet) => {
  const HEAD = 2 ** 18; // bytes; what comes before the picture is rarely longer
  const ORIENTATION = 0x0112;

  // The tag in a TIFF structure that begins at `start`.
  function tagged(view, start) {
    const little = view.getUint16(start) === 0x4949;
    const directory = start + view.getUint32(start + 4, little);
    const entries = view.getUint16(directory, little);
    for (let i = 0; i < entries; i += 1) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, little) === ORIENTATION) return view.getUint16(entry + 8, little);
    }
    return 1;
  }

  function found(view) {
    for (let at = 2; view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
      const exif = view.getUint8(at + 1) === 0xe1 && view.getUint32(at + 4) === 0x45786966;
      if (exif) return tagged(view, at + 10);
    }
    return 1;
  }

  // EXIF's orientation, 1 to 8, of a JPEG file; null of every other format.
  thawnet.orientation = async (file) => {
    const view = new DataView(await file.slice(0, HEAD).arrayBuffer());
    if (view.byteLength < 3 || view.getUint16(0) !== 0xffd8) return null;
    try {
      const value = found(view);
      return value >= 1 && value <= 8 ? value : 1;
    } catch {
      return 1; // cut off or nonsense: as if it said nothing
    }
  };
})((window.thawnet ??= {}));
