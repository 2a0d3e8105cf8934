// What do the fronts look like? One plot a device, all with the same axes, budgets and chosen model.
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon", "triangle-down"];
const OVERLAYS = ["x-thin-open", "cross-thin-open", "asterisk-open", "hash-open", "y-up-open", "y-down-open"];

const titleOf = name => {
  const { title, unit } = columns.get(name);
  return unit ? `${title}, ${unit}` : title;
};
const has = (model, name) => model.values[name] !== undefined && model.values[name] !== null;
const better = (a, b) => (report.score.direction === "min" ? a < b : a > b);

function hoverOf(model) {
  return [...columns.keys()].map(name => shown(model, name)).filter(text => text).join("<br>");
}

// Models that no faster one reaches in score.
function stairs(models) {
  const best = [];
  for (const model of [...models].sort((a, b) => a.values.latency_ms - b.values.latency_ms)) {
    if (!best.length || better(model.values[report.score.name], best.at(-1).values[report.score.name])) best.push(model);
  }
  return best;
}

function errorBars(models) {
  const { grey } = colours();
  const bars = { type: "data", thickness: 1, width: 0, color: grey };
  const all = name => models.length && models.every(model => model[name] !== null);
  const found = {};
  if (state.y === report.score.name && all("score_stderr")) found.error_y = { ...bars, array: models.map(m => m.score_stderr) };
  if (state.x === "latency_ms" && all("latency_error_ms")) found.error_x = { ...bars, array: models.map(m => m.latency_error_ms) };
  return found;
}

function markerOf(device, models) {
  const marker = { size: 11, symbol: SYMBOLS[device.number % SYMBOLS.length], color: device.colour, line: { color: colours().ink, width: 1 } };
  if (!state.colour) return marker;
  const [cmin, cmax] = columns.get(state.colour).range;
  return { ...marker, color: models.map(m => m.values[state.colour] ?? null), colorscale: "Cividis", cmin, cmax, showscale: false };
}

function evaluatedTrace(device) {
  const xs = device.evaluated[state.x], ys = device.evaluated[state.y];
  if (!xs || !ys) return null;
  const within = xs.map((_, i) => [...state.limits].every(([name, { low, high }]) => {
    const value = device.evaluated[name]?.[i];
    return value === undefined || value === null || !(value < low || value > high);
  }));
  const kept = values => values.filter((_, i) => within[i]);
  return { x: kept(xs), y: kept(ys), mode: "markers", name: "evaluated", type: "scatter", hoverinfo: "skip", marker: { color: colours().grey, size: 4, opacity: 0.5 } };
}

function chosenTrace(device) {
  const model = chosen();
  if (!model) return null;
  const here = modelOf(device.name, state.key);
  const known = here ?? { values: { ...model.values, measured_ms: null, latency_ms: estimate(state.key, device) } };
  if (!has(known, state.x) || !has(known, state.y)) return null;
  const { ink } = colours();
  return {
    x: [known.values[state.x]], y: [known.values[state.y]], mode: "markers", type: "scatter", name: "chosen", showlegend: false,
    hovertemplate: `chosen: ${state.key}${here ? "" : "<br>not on this front: estimate here"}<extra></extra>`,
    customdata: [here ? state.key : null],
    marker: { size: here ? 19 : 14, symbol: here ? "circle-open" : "diamond-open", color: ink, line: { width: 3, color: ink } },
  };
}

function rangeOf(device, traces) {
  if (state.y !== report.score.name) return undefined;
  const scores = (device.evaluated[state.y] ?? []).filter(v => v !== null).sort((a, b) => (better(a, b) ? 1 : -1));
  const seen = scores.slice(Math.floor(scores.length / 10)); // all but the worst tenth
  for (const trace of traces) if (trace && trace.name !== "evaluated") seen.push(...trace.y.filter(v => v !== null && v !== undefined));
  if (!seen.length) return undefined;
  const low = Math.min(...seen), high = Math.max(...seen), margin = 0.06 * (high - low) || 0.5;
  return [low - margin, high + margin];
}

function drawFront(device) {
  const target = $(`front-${device.name}`);
  const models = visible(device).filter(model => has(model, state.x) && has(model, state.y));
  const isFront = state.x === "latency_ms" && state.y === report.score.name;
  const best = isFront ? stairs(models) : [];
  const traces = [
    evaluatedTrace(device),
    isFront && { x: best.map(m => m.values[state.x]), y: best.map(m => m.values[state.y]), mode: "lines", type: "scatter", name: "front", showlegend: false, hoverinfo: "skip", line: { color: device.colour, width: 2, shape: "hv" } },
    {
      x: models.map(m => m.values[state.x]), y: models.map(m => m.values[state.y]), mode: "markers", type: "scatter", name: "models",
      customdata: models.map(m => m.key), text: models.map(hoverOf), hovertemplate: "<b>%{customdata}</b><br>%{text}<extra></extra>",
      marker: markerOf(device, models), ...errorBars(models),
    },
    isFront && device.by_hand.length ? { x: device.by_hand.map(p => p[0]), y: device.by_hand.map(p => p[1]), mode: "markers", type: "scatter", name: "scaled by hand", marker: { symbol: "x", size: 8, color: colours().ink }, hovertemplate: "scaled by hand: %{y:.4g}, %{x:.4g} ms<extra></extra>" } : null,
    ...device.overlays.map((overlay, i) => {
      const others = overlay.models.filter(m => has(m, state.x) && has(m, state.y) && fits(m));
      return { x: others.map(m => m.values[state.x]), y: others.map(m => m.values[state.y]), mode: "markers", type: "scatter", name: overlay.run, marker: { symbol: OVERLAYS[i % OVERLAYS.length], size: 8, color: colours().ink, line: { width: 1.5, color: colours().ink } }, text: others.map(hoverOf), hovertemplate: `<b>${overlay.run.replace(/</g, "&lt;")}</b><br>%{text}<extra></extra>` };
    }),
    chosenTrace(device),
  ].filter(trace => trace);
  const layout = {
    height: 360, margin: { l: 52, r: 12, t: 30, b: 44 }, hovermode: "closest", dragmode: "zoom",
    xaxis: { title: { text: titleOf(state.x) } }, yaxis: { title: { text: titleOf(state.y) }, range: rangeOf(device, traces) },
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", font: { size: 11 } },
  };
  draw(target, traces, layout);
}

function drawFronts() {
  for (const box of document.querySelectorAll("section[data-device]")) box.hidden = !state.shown.has(box.dataset.device);
  for (const device of devices.values()) if (state.shown.has(device.name)) drawFront(device);
  const scale = $("scale");
  scale.hidden = !state.colour;
  if (state.colour) [$("scale-low").textContent, $("scale-high").textContent] = columns.get(state.colour).range.map(v => number(v, state.colour));
}
parts.push([drawFronts, ["device", "key", "shown", "limits", "x", "y", "colour"]]);

for (const target of document.querySelectorAll(".front")) {
  const device = devices.get(target.dataset.device);
  Plotly.newPlot(target, [], layoutOf({ height: 360 }), settings);
  target.on("plotly_click", ({ points }) => {
    const key = points.map(point => point.customdata).find(found => typeof found === "string");
    if (key) choose(device.name, key);
  });
  target.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const models = visible(device).filter(m => has(m, state.x)).sort((a, b) => a.values[state.x] - b.values[state.x]);
    const at = state.device === device.name ? models.findIndex(m => m.key === state.key) : -1;
    const next = models[at < 0 ? (step > 0 ? 0 : models.length - 1) : Math.min(models.length - 1, Math.max(0, at + step))];
    if (next) choose(device.name, next.key);
  });
}
for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => {
    const shownNow = new Set(state.shown);
    if (!shownNow.delete(chip.dataset.device)) shownNow.add(chip.dataset.device);
    chip.setAttribute("aria-pressed", shownNow.has(chip.dataset.device));
    change({ shown: shownNow });
  });
}
$("axis-x").addEventListener("change", event => change({ x: event.target.value }));
$("axis-y").addEventListener("change", event => change({ y: event.target.value }));
$("colour").addEventListener("change", event => change({ colour: event.target.value }));
