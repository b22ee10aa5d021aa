// Keeps the page and its assets, so that it goes on working without a connection. The name changes with their content.
const CACHE = "refdiff-VERSION";
self.addEventListener("install", (event) => event.waitUntil((async () => {
  await (await caches.open(CACHE)).addAll(["./", "index.html", ...["ASSETS"]].map((name) => new Request(name, { cache: "no-cache" }))); // not what the browser has of an older version
  await self.skipWaiting();
})()));
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("refdiff-") && name !== CACHE) await caches.delete(name);
  await self.clients.claim();
})()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(self.registration.scope)) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    const found = await fetch(request.mode === "navigate" ? request : new Request(request, { cache: "no-cache" }));
    if (found.ok) await cache.put(request, found.clone());
    return found;
  })());
});
