// Keeps the page in step with the member that served it. The member renders; this puts what it rendered in place,
// keeps clocks running, and says so when news stop.

/** The member sends at least a heartbeat every 10 s. */
const SILENCE_MS = 25_000;
const RETRY_MS = 2_000;
/** A screen reader is told about changes no more often than this. */
const ANNOUNCE_MS = 5_000;

const live = document.getElementById("live");
const link = document.getElementById("link");
const linkText = document.getElementById("link-text");
const lost = document.getElementById("lost");
const news = document.getElementById("news");

let source;
let heardAt = Date.now();
let announcedAt = 0;

function show(state, symbol, text) {
  link.dataset.state = state;
  link.firstElementChild.textContent = symbol;
  linkText.textContent = text;
}

function heard() {
  heardAt = Date.now();
  if (link.dataset.state === "live") return;
  lost.hidden = true;
  show("live", "●", "live");
}

function fell() {
  if (link.dataset.state === "lost") return;
  show("lost", "✖", "connection lost");
  const at = new Date(heardAt).toLocaleTimeString();
  lost.textContent = `Connection lost. This is the state of ${at}; it may have changed since. Trying again …`;
  lost.hidden = false;
}

function connect() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("open", heard);
  source.addEventListener("heartbeat", heard);
  source.addEventListener("fragment", (event) => {
    heard();
    swap(event.data);
  });
  source.addEventListener("error", () => {
    fell();
    // The browser tries again by itself unless the answer was no stream at all.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
  });
}

function swap(html) {
  const next = new DOMParser().parseFromString(html, "text/html").getElementById("live");
  if (!next) return;
  if (next.dataset.edition !== live.dataset.edition) {
    // The member was upgraded: this script and the style may not fit its markup.
    location.reload();
    return;
  }
  morph(live, next);
  document.title = `${live.dataset.title} · kctl`;
  tick();
}

/** Makes `old` equal to `next`, touching only what differs, so that focus, scrolling and opened details stay. */
function morph(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = next.nodeValue;
    return;
  }
  // What a person opened or closed stays so until the member has another opinion than before.
  if (old.dataset.open !== next.dataset.open) old.open = next.open;
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, next);
}

const keyOf = (node) => node.dataset?.key;

function morphChildren(old, next) {
  const keyed = new Map();
  for (const child of old.children) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = old.firstChild;
  for (const wanted of [...next.childNodes]) {
    const key = keyOf(wanted);
    const fits = (node) => node.nodeName === wanted.nodeName && keyOf(node) === key;
    let found = key ? keyed.get(key) : place;
    if (found && !fits(found)) found = undefined;
    if (!found) {
      old.insertBefore(wanted, place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else old.insertBefore(found, place);
    morph(found, wanted);
  }
  while (place) {
    const rest = place.nextSibling;
    place.remove();
    place = rest;
  }
}

function elapsed(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - since) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${String(seconds % 60).padStart(2, "0")} s`;
  return `${Math.floor(seconds / 3600)} h ${String(Math.floor(seconds / 60) % 60).padStart(2, "0")} m`;
}

function tick() {
  for (const clock of live.querySelectorAll("[data-elapsed]")) {
    // As served: "since", then a point in time.
    const [word, time] = clock.childNodes;
    word.nodeValue = "for ";
    time.textContent = elapsed(Date.parse(time.dateTime));
  }
}

setInterval(() => {
  tick();
  const now = Date.now();
  if (now - heardAt > SILENCE_MS) {
    fell();
    heardAt = now;
    connect();
  }
  if (now - announcedAt > ANNOUNCE_MS && news.textContent !== live.dataset.news) {
    announcedAt = now;
    news.textContent = live.dataset.news;
  }
}, 1_000);

show("connecting", "◌", "connecting");
news.textContent = live.dataset.news;
tick();
connect();
