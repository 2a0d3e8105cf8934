// What is chosen, and who must know? One state; every part of the page draws itself from it.
const report = JSON.parse(document.getElementById("report-data").textContent);
const columns = new Map(report.columns.map(column => [column.name, column]));
const devices = new Map(report.devices.map((device, i) => [device.name, { ...device, colour: report.colours[i % report.colours.length], number: i }]));
const state = {
  device: null, key: null, // of the chosen model
  on: null, // device on which the chosen model is looked at
  shown: new Set(devices.keys()),
  limits: new Map(), // by column: {low, high}, either may be missing
  x: "latency_ms", y: report.score.name, colour: "",
};
const parts = []; // [function that draws, names of what it draws]
const $ = id => document.getElementById(id);

function change(values) {
  Object.assign(state, values);
  for (const [part, of] of parts) if (of.some(name => name in values)) part();
}

function choose(device, key) {
  change({ device, key, on: device });
  const model = chosen();
  $("said").textContent = `Chosen: ${key} on ${device}, ${shown(model, report.score.name)}, ${shown(model, "latency_ms")}`;
  history.replaceState(null, "", `#${encodeURIComponent(device)}/${encodeURIComponent(key)}`);
}

function modelOf(device, key) {
  return devices.get(device)?.models.find(model => model.key === key);
}

const chosen = () => modelOf(state.device, state.key);

function fits(model) {
  for (const [name, { low, high }] of state.limits) {
    const value = model.values[name];
    if (value === undefined || value === null || value < low || value > high) return false;
  }
  return true;
}

const visible = device => (state.shown.has(device.name) ? device.models.filter(fits) : []);

// Latency of any known arch on any device: what every network pays, and its blocks.
function blockTimes(key, device) {
  const pieces = report.pieces[key], of = device.times_in_8_bits && pieces?.in_8_bits ? device.times_in_8_bits : device.times;
  if (!pieces || !of.block_ms.length) return null;
  const blocks = pieces.blocks.map(([slot, number]) => ({ slot, block: report.blocks[number], ms: of.block_ms[number] ?? 0 }));
  return { blocks, constant_ms: of.constant_ms ?? 0 };
}

function estimate(key, device) {
  const times = blockTimes(key, device);
  return times && times.blocks.reduce((sum, one) => sum + one.ms, times.constant_ms);
}

function number(value, name) {
  if (value === null || value === undefined) return "–";
  if (name === "params" || name === "macs") return Math.round(value).toLocaleString("en");
  return name.endsWith("percent") ? value.toFixed(2) : String(Number(value.toPrecision(4)));
}

function shown(model, name) {
  const column = columns.get(name);
  return column && model ? `${column.title} ${number(model.values[name], name)} ${column.unit}`.trim() : "";
}

// An element with a text, attributes and children; texts are never read as HTML.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}
