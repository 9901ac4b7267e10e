// The page's service worker: keeps the page, so that it opens without a network. The exporter puts
// in front of it what `thawnet` holds: a version, which is a hash, and two lists of paths: files, kept
// for every visitor, and later, kept for those whose browser asks for them.
"use strict";

(({ version, files, later }) => {
  const OWN = `thawnet-${registration.scope}-`;
  const CACHE = OWN + version;

  async function keep() {
    const cache = await caches.open(CACHE);
    await cache.addAll(files.map((path) => new Request(path, { cache: "no-cache" })));
    await self.skipWaiting();
  }

  // What another version of this page kept; not what other pages of the same host did.
  async function forget() {
    const names = (await caches.keys()).filter((name) => name.startsWith(OWN) && name !== CACHE);
    await Promise.all(names.map((name) => caches.delete(name)));
    await self.clients.claim();
  }

  async function answer(request) {
    const cache = await caches.open(CACHE);
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    const found = await fetch(request);
    const keeps = later.some((path) => new URL(path, registration.scope).href === request.url);
    if (keeps && found.ok) await cache.put(request, found.clone()).catch(() => {}); // a full disk
    return found;
  }

  self.addEventListener("install", (event) => event.waitUntil(keep()));
  self.addEventListener("activate", (event) => event.waitUntil(forget()));
  self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
})(self.thawnet);
