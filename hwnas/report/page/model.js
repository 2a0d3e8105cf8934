// What is the chosen model? Its numbers, its blocks, where its time goes, what became of it, and what to do with it.
function factsTable(model) {
  const cells = [...columns.keys()].filter(name => has(model, name)).map(name => [columns.get(name).title, `${number(model.values[name], name)} ${columns.get(name).unit}`.trim()]);
  return element("div", { class: "scroll facts" }, element("table", {}, element("tbody", {}, ...cells.map(([title, text]) =>
    element("tr", {}, element("td", { class: "text" }, title), element("td", {}, text))))));
}

// What the model takes on every device, and on whose fronts it is.
function devicesTable() {
  const line = device => {
    const here = modelOf(device.name, state.key);
    const ms = here?.values.latency_ms ?? estimate(state.key, device);
    const error = device.error_percent === null || ms === null ? "" : ` ± ${Number((ms * device.error_percent / 100).toPrecision(2))}`;
    return element("tr", {}, element("td", { class: "text" }, device.name), element("td", {}, ms === null ? "–" : `${number(ms, "ms")}${error}`),
      element("td", {}, number(here?.values.measured_ms, "ms")), element("td", { class: "text" }, here ? "yes" : "no"));
  };
  return element("div", { class: "scroll" }, element("table", { id: "on-devices" },
    element("thead", {}, element("tr", {}, element("th", { class: "text" }, "device"), element("th", {}, "estimated ms"), element("th", {}, "measured ms"), element("th", { class: "text" }, "on its front"))),
    element("tbody", {}, ...[...devices.values()].map(line))));
}

function stagesTable(model) {
  const heading = ["step", `validation ${titleOf(report.score.name).replace("validation ", "")}`, "test", "measured ms", "size MB", ""];
  const line = stage => element("tr", {}, element("td", { class: "text" }, stage.name),
    ...[["score", report.score.name, "score_stderr"], ["test_score", report.score.name, "test_stderr"], ["latency_ms", "ms", "latency_stderr_ms"], ["size_mb", "mb", ""]].map(([field, name, error]) =>
      element("td", {}, `${number(stage[field], name)}${(stage[field] ?? null) !== null && (stage[error] ?? null) !== null ? ` ± ${Number(stage[error].toPrecision(2))}` : ""}`)),
    element("td", { class: "text wrap" }, stage.note));
  return element("div", { class: "scroll" }, element("table", { id: "stages" },
    element("thead", {}, element("tr", {}, ...heading.map((text, i) => element("th", i === 0 || i === 5 ? { class: "text" } : {}, text)))),
    element("tbody", {}, ...model.stages.map(line))));
}

const DETAILS = { kernel_size: v => `${v}×${v}`, mid_channels: v => `${v} channels inside`, stride: v => (v > 1 ? `stride ${v}` : ""), se: v => (v ? "SE" : ""), act: v => v, operator: v => v };

function blockList(times) {
  const longest = Math.max(...times.map(one => one.ms), 1e-12);
  return element("ol", { class: "blocks", "aria-label": "Blocks from input to output" }, ...times.map(({ slot, block, ms }) => {
    const details = Object.entries(DETAILS).filter(([name]) => block[name] !== undefined).map(([name, show]) => show(block[name])).filter(text => text);
    const item = element("li", { title: Object.entries(block).map(([k, v]) => `${k} ${v}`).join(", ") },
      element("b", {}, slot), `${block.kind} ${details.join(" ")}`,
      element("span", {}, `${block.in_channels} → ${block.out_channels} channels`), element("span", {}, `${block.in_size_px} px, ${number(ms, "ms")} ms`),
      element("i", { style: `width:${Math.max(0, 100 * ms / longest)}%` }));
    return item;
  }));
}

function drawWaterfall(target, { blocks, constant_ms }, device) {
  const { ink, grey } = colours();
  const names = ["every network", ...blocks.map(one => one.slot), "total"];
  const data = [{
    type: "waterfall", orientation: "h", y: names, x: [constant_ms, ...blocks.map(one => one.ms), 0],
    measure: [...names.slice(1).map(() => "relative"), "total"], connector: { line: { color: grey, width: 1 } },
    increasing: { marker: { color: device.colour } }, decreasing: { marker: { color: grey } }, totals: { marker: { color: ink } },
    hovertemplate: "%{y}: %{delta:.4g} ms<br>up to here %{final:.4g} ms<extra></extra>",
  }];
  draw(target, data, { height: 110 + 20 * names.length, margin: { l: 100, r: 12, t: 8, b: 44 }, showlegend: false,
    xaxis: { title: { text: `estimated latency on ${device.name}, ms` }, rangemode: "tozero" }, yaxis: { autorange: "reversed", type: "category" } });
}

// Any value that is known for each slot or layer, such as introspectability.
function drawByLayer(target, name, values) {
  const layers = Object.keys(values);
  draw(target, [{ type: "bar", orientation: "h", y: layers, x: Object.values(values), marker: { color: colours().grey }, hovertemplate: "%{y}: %{x:.4g}<extra></extra>" }],
    { height: 110 + Math.max(12, 20 - layers.length / 8) * layers.length, margin: { l: 100, r: 12, t: 8, b: 44 }, showlegend: false, xaxis: { title: { text: name.replaceAll("_", " ") } }, yaxis: { autorange: "reversed", type: "category" } });
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from a file may not have the clipboard: the older way
    const area = element("textarea", { style: "position:fixed;opacity:0" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = before; }, 1500);
}

// The folder of the run is where the page lies; elsewhere than in a file the reader has to know it.
function runFolder() {
  if (location.protocol !== "file:") return "RUN";
  return decodeURIComponent(location.pathname).replace(/\/[^/]*$/, "").replace(/^\/(?=[A-Za-z]:)/, "");
}

const quoted = text => (/^[\w@%+=:,.\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`); // as a shell takes it

function commandText(command) {
  const folder = command.startsWith("hwnas.") ? JSON.stringify(runFolder()) : quoted(runFolder());
  return command.replaceAll("{run}", () => folder);
}

function commandList(model) {
  return element("div", { id: "commands" }, ...model.commands.map(([what, command]) => {
    const text = commandText(command);
    const button = element("button", { type: "button", class: "small", "aria-label": `copy: ${what}` }, "copy");
    button.addEventListener("click", () => copy(text, button));
    return element("div", { class: "command" }, element("span", {}, what), element("code", {}, text), button);
  }));
}

function deviceChoice() {
  const select = element("select", { id: "on-device", "aria-label": "Device of the latencies" }, ...[...devices.keys()].map(name => element("option", { value: name }, name)));
  select.value = state.on;
  select.addEventListener("change", () => change({ on: select.value }));
  return select;
}

function drawModel() {
  const model = chosen(), panel = $("model-panel");
  if (!model) return;
  const device = devices.get(state.on), times = blockTimes(state.key, device), focused = document.activeElement?.id;
  const byLayer = Object.entries(report.pieces[state.key]?.by_layer ?? {});
  const waterfall = element("div", { class: "figure", id: "waterfall" });
  const bars = byLayer.map(([name]) => element("div", { class: "figure", id: `layers-${name}` }));
  const outside = model.outside_percent > 10 ? element("p", { class: "warn" }, `${number(model.outside_percent, "x")} % of its estimated latency on ${state.device} is outside of what the profile was fitted to; the published error does not cover it. Time it on the device.`) : null;
  for (const old of panel.querySelectorAll(".js-plotly-plot")) Plotly.purge(old);
  panel.replaceChildren(...[
    element("h3", {}, element("code", {}, state.key), ` from the front of ${state.device}`, ...(model.knee ? [" ", element("span", { class: "badge" }, "knee")] : [])),
    element("p", { class: "soft" }, model.shape), outside,
    element("div", { class: "two" }, element("div", {}, element("h3", {}, "Numbers"), factsTable(model)), element("div", {}, element("h3", {}, "On every device"), devicesTable())),
    element("h3", {}, "Before and after"), stagesTable(model),
    element("h3", {}, "What to do with it"), commandList(model),
    times && element("h3", {}, "Where its time goes, on ", deviceChoice()), times && blockList(times.blocks),
    times && element("div", { class: "two" }, waterfall, ...bars),
    times?.blocks.some(one => one.ms < 0) ? element("p", { class: "note" }, "The cost of a call is taken out of every block that was timed alone; what is left of a tiny one can be below 0.") : null,
  ].filter(part => part));
  if (times) drawWaterfall(waterfall, times, device);
  byLayer.forEach(([name, values], i) => drawByLayer(bars[i], name, values));
  if (focused === "on-device") $("on-device").focus();
}
parts.push([drawModel, ["device", "key", "on"]]);
