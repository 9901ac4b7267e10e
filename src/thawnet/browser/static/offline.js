// The page's service worker: keeps the page, so that it opens without a network. The exporter puts
// VERSION, a hash, and FILES, paths, in front.
"use strict";

const CACHE = `thawnet-${registration.scope}-${VERSION}`;

async function keep() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((path) => new Request(path, { cache: "no-cache" })));
  await self.skipWaiting();
}

// What another version of this page kept; not what other pages of the same host did.
async function forget() {
  const own = `thawnet-${registration.scope}-`;
  const names = (await caches.keys()).filter((name) => name.startsWith(own) && name !== CACHE);
  await Promise.all(names.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(forget()));
self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
