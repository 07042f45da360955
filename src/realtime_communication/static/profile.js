"use strict";
// Draws the profile that is embedded in the page as a flame graph, roots on top. No request is ever made.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 20, CHARACTER = 7.3, MARGIN = 4, THINNEST = 0.5;
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const graph = byId("graph"), search = byId("search"), waiting = byId("waiting");

  const KIND_OF = { "(waiting)": "idle", "(compiled code)": "compiled" };
  const kindOf = (label, depth) =>
    KIND_OF[label] || (depth === 1 ? "thread" : label.includes("(realtime_communication/") ? "own" : "library");

  const node = (label, parent) =>
    ({ label, parent, depth: parent ? parent.depth + 1 : 0, value: 0, self: 0, children: new Map() });

  // Everything below one root. What waits is left out unless it is asked for.
  function treeOf(withWaiting) {
    const root = node("everything", null);
    for (const [numbers, value] of data.stacks) {
      const labels = numbers.map((number) => data.labels[number]);
      if (!withWaiting && labels[labels.length - 1] === "(waiting)") continue;
      let at = root;
      at.value += value;
      for (const label of labels) {
        if (!at.children.has(label)) at.children.set(label, node(label, at));
        at = at.children.get(label);
        at.value += value;
      }
      at.self += value;
    }
    return root;
  }

  const sorted = (parent) => [...parent.children.values()].sort((a, b) => b.value - a.value);
  const milliseconds = (value) => (value / 1000).toLocaleString("en", { maximumFractionDigits: 1 }) + " ms";
  const percent = (value) => (root.value ? (100 * value / root.value).toFixed(1) : "0.0") + " %";
  const describe = (each) =>
    `${each.label}: ${milliseconds(each.value)}, ${percent(each.value)}` +
    (each.self && each.self !== each.value ? `, in itself ${milliseconds(each.self)}` : "");

  let root = treeOf(false), zoomed = root, focused = root, elements = new Map();

  const lineage = (each) => (each.parent ? [...lineage(each.parent), each] : [each]);
  const matches = (each, text) => text !== "" && each.depth > 0 && each.label.toLowerCase().includes(text);

  // Time in frames that match, each stack counted once: the topmost match covers what is below.
  const matched = (each, text) =>
    matches(each, text) ? each.value : sorted(each).reduce((sum, child) => sum + matched(child, text), 0);

  function draw() {
    const width = Math.max(graph.clientWidth, 200), text = search.value.trim().toLowerCase();
    const svg = document.createElementNS(SVG, "svg");
    const outer = lineage(zoomed);
    let depth = 0;
    elements = new Map();

    const place = (each, x, span, isOuter) => {
      depth = Math.max(depth, each.depth);
      svg.append(frameElement(each, x, span, isOuter, text));
    };
    const placeBelow = (parent, x, scale) => {
      for (const child of sorted(parent)) {
        const span = child.value * scale;
        if (span < THINNEST) break;
        place(child, x, span, false);
        placeBelow(child, x, scale);
        x += span;
      }
    };
    for (const each of outer) place(each, 0, width, each !== zoomed);
    if (zoomed.value) placeBelow(zoomed, 0, width / zoomed.value);

    svg.setAttribute("role", "tree");
    svg.setAttribute("aria-label", "Flame graph");
    svg.setAttribute("viewBox", `0 0 ${width} ${(depth + 1) * ROW}`);
    svg.setAttribute("height", (depth + 1) * ROW);
    graph.replaceChildren(svg);
    if (!elements.has(focused)) focused = zoomed;
    elements.get(focused).setAttribute("tabindex", "0");
    byId("empty").hidden = root.value > 0;
    byId("reset").disabled = zoomed === root;
    byId("found").textContent = text === "" ? "" : found(text);
  }

  function found(text) {
    const value = matched(root, text);
    return value ? `Frames with “${search.value.trim()}”: ${milliseconds(value)}, ${percent(value)}` : "Nothing of that name";
  }

  function frameElement(each, x, span, isOuter, text) {
    const group = document.createElementNS(SVG, "g");
    const kind = each.depth === 0 ? "thread" : kindOf(each.label, each.depth);
    const classes = ["frame", kind, matches(each, text) ? "match" : "", isOuter ? "outer" : ""];
    group.setAttribute("class", classes.filter(Boolean).join(" "));
    group.setAttribute("role", "treeitem");
    group.setAttribute("aria-level", each.depth + 1);
    group.setAttribute("aria-label", describe(each));
    group.setAttribute("tabindex", "-1");
    const rect = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x, y: each.depth * ROW, width: span, height: ROW - 1, rx: 2 }))
      rect.setAttribute(name, value);
    const title = document.createElementNS(SVG, "title");
    title.textContent = describe(each);
    group.append(title, rect);
    const room = Math.floor((span - 2 * MARGIN) / CHARACTER);
    if (room >= 3) {
      const words = document.createElementNS(SVG, "text");
      words.setAttribute("x", x + MARGIN);
      words.setAttribute("y", each.depth * ROW + 14);
      words.textContent = each.label.length <= room ? each.label : each.label.slice(0, room - 1) + "…";
      group.append(words);
    }
    group.addEventListener("click", () => zoom(each));
    group.addEventListener("mouseenter", () => tell(each));
    group.addEventListener("focus", () => tell(each));
    elements.set(each, group);
    return group;
  }

  function tell(each) {
    byId("detail").textContent = describe(each);
  }

  function focus(each) {
    if (!each || !elements.has(each)) return;
    elements.get(focused).setAttribute("tabindex", "-1");
    focused = each;
    elements.get(each).setAttribute("tabindex", "0");
    elements.get(each).focus();
  }

  function zoom(each) {
    zoomed = focused = each;
    draw();
    elements.get(each).focus();
  }

  const neighbour = (each, step) => {
    if (!each.parent) return null;
    const all = sorted(each.parent).filter((child) => elements.has(child));
    return all[all.indexOf(each) + step];
  };

  const MOVES = {
    ArrowUp: () => focus(focused.parent),
    ArrowDown: () => focus(sorted(focused)[0]),
    ArrowLeft: () => focus(neighbour(focused, -1)),
    ArrowRight: () => focus(neighbour(focused, 1)),
    Home: () => focus(root),
    Enter: () => zoom(focused),
    " ": () => zoom(focused),
    Escape: () => zoom(root),
  };

  graph.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    move();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === search) return;
    event.preventDefault();
    search.focus();
  });
  search.addEventListener("input", draw);
  waiting.addEventListener("change", () => {
    root = zoomed = focused = treeOf(waiting.checked);
    draw();
  });
  byId("reset").addEventListener("click", () => zoom(root));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("resize", draw);

  byId("about").textContent =
    `${data.taken} · ${data.seconds} s · ${data.samples} samples, ${data.hz} a second asked for`;
  draw();
})();
