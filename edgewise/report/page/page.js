"use strict";
(() => {
  const PALETTE = Array.from({ length: 8 }, (_, i) => `var(--series-${i})`); // page.css has them, others for the dark
  const LEFT = 62, RIGHT = 22, TOP = 34, BOTTOM = 46;
  let W = 1000, H = 520; // pixels; of the place that the page gives
  const metric = JSON.parse(document.getElementById("metric").textContent); // null where the task judges nothing
  const points = JSON.parse(document.getElementById("data").textContent);
  const percent = (v) => (100 * v).toFixed(2) + " %";
  const short = (v) => String(+v.toPrecision(3));
  const signed = (v) => (v > 0 ? "+" : "") + (100 * v).toFixed(2).replace("-", "\u2212");
  // get: the value; ends: its 95 % interval; good: the better direction; log: a ratio scale
  const FIGURES = {
    "latency p50, ms": { get: (p) => p.latency_p50_ms, ends: (p) => p.latency_p50_ci95_ms, good: -1, log: true, show: short },
    "latency / reference": { get: (p) => p.latency_ratio_to_reference, ends: (p) => p.latency_ratio_ci95, good: -1, log: true, show: short },
    "size, MB": { get: (p) => p.size_bytes / 1e6, good: -1, log: true, show: short },
    "peak memory, MB": { get: (p) => p.peak_rss_bytes && p.peak_rss_bytes / 1e6, good: -1, log: true, show: short },
    "peak above runtime, MB": { get: (p) => p.peak_rss_above_baseline_bytes && p.peak_rss_above_baseline_bytes / 1e6, good: -1, log: true, show: short },
    "agreement with the reference, SQNR dB": { get: (p) => p.sqnr_db && Math.min(p.sqnr_db, 100), good: 1, show: short },
  };
  if (metric) {
    const good = metric.higher_is_better ? 1 : -1;
    FIGURES[metric.label] = { get: (p) => p.score, ends: (p) => p.score_delta_ci95 && p.score_delta_ci95.map((d) => p.score - p.score_delta + d), good, show: metric.share ? percent : short };
    FIGURES[metric.title + " change" + (metric.share ? ", points" : "")] = { get: (p) => p.score_delta, ends: (p) => p.score_delta_ci95, good, show: metric.share ? signed : short };
  }
  const known = (figure) => points.filter((p) => Number.isFinite(FIGURES[figure].get(p)) && FIGURES[figure].get(p) !== null);
  const formats = [...new Set(points.map((p) => p.format))].sort();
  const colour = (p) => PALETTE[formats.indexOf(p.format) % PALETTE.length];
  const largest = Math.max(...points.map((p) => p.size_bytes || 0), 1);
  const radius = (p) => 3 + (W < 600 ? 13 : 21) * Math.sqrt((p.size_bytes || 0) / largest);
  const plot = document.getElementById("plot"), tip = document.getElementById("tip");
  const across = document.getElementById("across"), up = document.getElementById("up"), bars = document.getElementById("bars");

  function element(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function scale(figure, shown, from, to) {
    const f = FIGURES[figure], bend = f.log ? Math.log10 : (v) => v;
    const values = shown.flatMap((p) => [f.get(p), ...((bars.checked && f.ends && f.ends(p)) || [])]).map(bend).filter(Number.isFinite);
    let low = Math.min(...values), high = Math.max(...values);
    const room = (high - low || 0.1 * Math.abs(high) || 0.1) * 0.1;
    low -= room; high += room;
    const place = (v) => from + ((bend(v) - low) / (high - low)) * (to - from);
    return { place, ticks: f.log ? logTicks(low, high) : evenTicks(low, high) };
  }

  function logTicks(low, high) {
    const inside = (steps) => {
      const all = [];
      for (let e = Math.floor(low); e <= Math.ceil(high); e++) for (const m of steps) all.push(m * 10 ** e);
      return all.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
    };
    const [coarse, fine] = [inside([1, 2, 5]), inside([1, 1.5, 2, 3, 5, 7])];
    if (fine.length < 3) return evenTicks(10 ** low, 10 ** high).filter((v) => v > 0);
    return coarse.length > 4 || W < 600 ? coarse : fine;
  }

  function evenTicks(low, high) {
    const raw = (high - low) / 6, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    return Array.from({ length: 12 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((v) => v <= high);
  }

  function front(shown, a, b) { // what nothing beats in the two figures, in the order of the first
    const better = (p, q) => [a, b].every((f) => FIGURES[f].good * (FIGURES[f].get(p) - FIGURES[f].get(q)) >= 0)
      && [a, b].some((f) => FIGURES[f].get(p) !== FIGURES[f].get(q));
    return shown.filter((p) => !shown.some((q) => better(q, p))).sort((p, q) => FIGURES[a].get(p) - FIGURES[a].get(q));
  }

  function names(svg, spots) { // the nearest free place around each circle
    const taken = spots.map((s) => [s.x - s.r, s.y - s.r, s.x + s.r, s.y + s.r]);
    const hit = (b) => taken.reduce((sum, t) => sum + Math.max(0, Math.min(b[2], t[2]) - Math.max(b[0], t[0])) * Math.max(0, Math.min(b[3], t[3]) - Math.max(b[1], t[1])), 0)
      + (b[0] < LEFT || b[2] > W - 2 || b[1] < 4 || b[3] > H - BOTTOM ? 1e4 : 0);
    for (const s of spots) {
      const best = s.p.pareto || s.p.chosen;
      const label = element("text", { class: best ? "name best" : "name" }, s.p.name + (s.p.chosen ? " (chosen)" : s.p.reference ? " (reference)" : ""));
      svg.append(label);
      const w = label.getComputedTextLength() || 7 * s.p.name.length, h = 13;
      let pick = null;
      for (const d of [4, 14, 26, 42, 62, 90]) for (let i = 0; i < 16; i++) {
        const angle = (Math.PI / 8) * [0, 8, 1, 15, 7, 9, 2, 14, 6, 10, 4, 12, 3, 13, 5, 11][i], c = Math.cos(angle), n = Math.sin(angle);
        const x = s.x + (s.r + d) * c - (w * (1 - c)) / 2, y = s.y - (s.r + d) * n - (h * (1 + n)) / 2;
        const box = [x, y, x + w, y + h], cost = hit(box) + d / 100;
        if (!pick || cost < pick.cost) pick = { cost, box, d };
      }
      taken.push(pick.box);
      label.setAttribute("x", pick.box[0]);
      label.setAttribute("y", pick.box[3] - 3);
      if (pick.d > 14) {
        const x = Math.min(Math.max(s.x, pick.box[0]), pick.box[2]), y = Math.min(Math.max(s.y, pick.box[1]), pick.box[3]);
        svg.insertBefore(element("line", { x1: s.x, y1: s.y, x2: x, y2: y, stroke: "var(--soft)", "stroke-width": 0.6 }), svg.querySelector(".spot"));
      }
    }
  }

  function axes(svg, xs, ys) {
    for (const v of xs.ticks) {
      svg.append(element("line", { class: "axis", x1: xs.place(v), x2: xs.place(v), y1: TOP, y2: H - BOTTOM }));
      svg.append(element("text", { x: xs.place(v), y: H - BOTTOM + 17, "text-anchor": "middle" }, FIGURES[across.value].show(v)));
    }
    for (const v of ys.ticks) {
      svg.append(element("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: ys.place(v), y2: ys.place(v) }));
      svg.append(element("text", { x: LEFT - 8, y: ys.place(v) + 4, "text-anchor": "end" }, FIGURES[up.value].show(v)));
    }
    svg.append(element("text", { class: "best", x: W - RIGHT, y: H - 8, "text-anchor": "end" }, across.value + (FIGURES[across.value].log ? " (log)" : "")));
    svg.append(element("text", { class: "best", x: 4, y: W < 600 ? 28 : 14 }, up.value));
    formats.forEach((name, i) => {
      const x = W - (W < 600 ? 72 : 86) * (formats.length - i);
      svg.append(element("circle", { cx: x + 4, cy: 10, r: 5, fill: PALETTE[i % PALETTE.length], opacity: 0.7 }));
      svg.append(element("text", { x: x + 12, y: 14 }, name));
    });
  }

  function draw() {
    const shown = known(across.value).filter((p) => known(up.value).includes(p));
    W = Math.max(340, plot.clientWidth);
    H = Math.round(Math.min(540, Math.max(360, 0.52 * W)));
    const svg = element("svg", { viewBox: `0 0 ${W} ${H}` });
    plot.replaceChildren(svg);
    if (!shown.length) return;
    const xs = scale(across.value, shown, LEFT, W - RIGHT), ys = scale(up.value, shown, H - BOTTOM, TOP);
    const x = (p) => xs.place(FIGURES[across.value].get(p)), y = (p) => ys.place(FIGURES[up.value].get(p));
    axes(svg, xs, ys);
    const best = front(shown, across.value, up.value);
    document.getElementById("dashed").hidden = best.length < 2;
    const steps = best.map((p, i) => (i ? `H${x(p)}V${y(p)}` : `M${x(p)} ${y(p)}`)).join("");
    svg.append(element("path", { d: steps, fill: "none", stroke: "var(--ink)", "stroke-dasharray": "5 4", opacity: 0.5 }));
    for (const p of bars.checked ? shown : []) {
      const level = FIGURES[across.value].ends && FIGURES[across.value].ends(p), upright = FIGURES[up.value].ends && FIGURES[up.value].ends(p);
      const line = { stroke: colour(p), "stroke-width": 1.6, opacity: "var(--bars)" };
      if (level) svg.append(element("line", { ...line, x1: xs.place(level[0]), x2: xs.place(level[1]), y1: y(p), y2: y(p) }));
      if (upright) svg.append(element("line", { ...line, x1: x(p), x2: x(p), y1: ys.place(upright[0]), y2: ys.place(upright[1]) }));
    }
    const spots = [...shown].sort((p, q) => q.size_bytes - p.size_bytes).map((p) => ({ p, x: x(p), y: y(p), r: radius(p) }));
    for (const s of spots) svg.append(spot(s));
    names(svg, spots);
  }

  function spot(s) {
    const group = element("g", { class: "spot", tabindex: 0, "data-name": s.p.name });
    const ring = s.p.pareto ? { stroke: "var(--ink)", "stroke-width": 1.6 } : { stroke: colour(s.p), "stroke-width": 1 };
    group.append(element("circle", { cx: s.x, cy: s.y, r: s.r, fill: colour(s.p), "fill-opacity": s.p.pareto ? 0.5 : 0.22, ...ring }));
    group.append(element("circle", { cx: s.x, cy: s.y, r: 2, fill: colour(s.p), style: "stroke:none" }));
    const show = () => say(s), hide = () => { tip.hidden = true; mark(null); };
    group.addEventListener("mouseenter", show); group.addEventListener("focus", show);
    group.addEventListener("mouseleave", hide); group.addEventListener("blur", hide);
    return group;
  }

  function say(s) {
    const lines = Object.entries(FIGURES).filter(([, f]) => Number.isFinite(f.get(s.p)) && f.get(s.p) !== null).map(([name, f]) => {
      const ends = f.ends && f.ends(s.p);
      return `${name}: ${f.show(f.get(s.p))}${ends ? ` [${ends.map(f.show).join(", ")}]` : ""}`;
    });
    tip.textContent = [s.p.name, s.p.verdict + (s.p.noise_grade ? ` (${s.p.noise_grade})` : ""), ...lines].join("\n");
    tip.hidden = false;
    const box = plot.getBoundingClientRect(), k = box.width / W;
    tip.style.left = Math.max(0, Math.min(s.x * k + 14, box.width - tip.offsetWidth)) + "px";
    tip.style.top = plot.offsetTop + s.y * k + s.r * k + 8 + "px";
    mark(s.p.name);
  }

  function mark(name) {
    for (const row of document.querySelectorAll("#variants tbody tr")) row.classList.toggle("picked", row.dataset.name === name);
    for (const group of plot.querySelectorAll(".spot")) group.classList.toggle("picked", group.dataset.name === name);
  }

  function sortable(table) {
    const number = (text) => { const found = text.replace(/\u2212/g, "-").match(/^[+-]?[\d.]+/); return found ? +found[0] : null; };
    table.querySelectorAll("thead th").forEach((head, column) => head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent, turn = down ? -1 : 1;
      const order = (a, b) => {
        const [x, y] = [number(key(a)), number(key(b))];
        if (!key(a) || !key(b)) return !key(a) - !key(b); // what is not known stays last
        return turn * (x !== null && y !== null ? x - y : key(a).localeCompare(key(b)));
      };
      body.append(...[...body.rows].sort(order));
    }));
  }

  for (const [select, wanted] of [[across, ["latency p50, ms", "size, MB"]], [up, [metric ? metric.label : "agreement with the reference, SQNR dB"]]]) {
    const offered = Object.keys(FIGURES).filter((figure) => known(figure).length);
    select.append(...offered.map((figure) => new Option(figure)));
    select.value = wanted.find((figure) => offered.includes(figure)) || offered[0];
    select.addEventListener("change", draw);
  }
  bars.addEventListener("change", draw);
  for (const row of document.querySelectorAll("#variants tbody tr")) {
    row.addEventListener("mouseenter", () => mark(row.dataset.name));
    row.addEventListener("mouseleave", () => mark(null));
  }
  sortable(document.getElementById("variants"));
  window.addEventListener("resize", draw);
  draw();
})();
