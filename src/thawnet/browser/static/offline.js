// The page's service worker: keeps the page, so that it opens without a network. The exporter puts
// in front VERSION, a hash, and two lists of paths: FILES, kept for every visitor, and LATER, kept
// for those whose browser asks for them.
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
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return kept;
  const found = await fetch(request);
  const later = LATER.some((path) => new URL(path, registration.scope).href === request.url);
  if (later && found.ok) await cache.put(request, found.clone()).catch(() => {}); // a full disk
  return found;
}

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(forget()));
self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
