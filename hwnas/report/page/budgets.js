// Which budgets does a reader have? Two sliders and two boxes for each column; the same limits as on the command line.
const STEPS = 200;

// Values of several magnitudes are spread by their logarithm.
function scaleOf([low, high]) {
  const log = low > 0 && high / low > 20;
  const [from, to] = log ? [Math.log(low), Math.log(high)] : [low, high];
  return {
    value: step => (log ? Math.exp(from + (to - from) * (step / STEPS)) : from + (to - from) * (step / STEPS)),
    step: value => (to > from ? Math.round(STEPS * ((log ? Math.log(Math.max(value, low)) : value) - from) / (to - from)) : 0),
  };
}

function setLimit(name, end, value) {
  const limits = new Map(state.limits);
  const own = { ...limits.get(name) };
  if (value === null) delete own[end];
  else own[end] = value;
  if (own.low === undefined && own.high === undefined) limits.delete(name);
  else limits.set(name, own);
  change({ limits });
}

const limitTexts = () => [...state.limits].flatMap(([name, { low, high }]) => [
  low === undefined ? null : `${name}>=${Number(low.toPrecision(6))}`,
  high === undefined ? null : `${name}<=${Number(high.toPrecision(6))}`,
]).filter(text => text);

function drawBudgets() {
  const all = [...devices.values()].filter(device => state.shown.has(device.name));
  const total = all.reduce((sum, device) => sum + device.models.length, 0);
  const kept = all.reduce((sum, device) => sum + visible(device).length, 0);
  $("budget-count").textContent = kept === total ? `all ${total} models are shown` : `${kept} of ${total} models are within`;
  const texts = limitTexts();
  $("budget-limits").textContent = texts.length ? `On the command line: ${texts.map(text => `--limit "${text}"`).join(" ")}` : "";
  for (const box of document.querySelectorAll("fieldset[data-column]")) {
    const own = state.limits.get(box.dataset.column) ?? {};
    box.classList.toggle("set", own.low !== undefined || own.high !== undefined);
    const scale = scaleOf(columns.get(box.dataset.column).range);
    for (const input of box.querySelectorAll("input")) {
      if (input === document.activeElement && input.type === "number") continue; // it is being typed in
      const value = own[input.dataset.end];
      if (input.type === "number") input.value = value === undefined ? "" : Number(value.toPrecision(6));
      else if (input !== document.activeElement || value === undefined) input.value = value === undefined ? (input.dataset.end === "low" ? 0 : STEPS) : scale.step(value);
    }
  }
}
parts.push([drawBudgets, ["shown", "limits"]]);

for (const box of document.querySelectorAll("fieldset[data-column]")) {
  const name = box.dataset.column;
  const scale = scaleOf(columns.get(name).range);
  for (const input of box.querySelectorAll("input")) {
    const end = input.dataset.end;
    input.addEventListener("input", () => {
      if (input.type === "number") {
        const value = input.valueAsNumber;
        setLimit(name, end, Number.isFinite(value) ? value : null);
      } else {
        const step = Number(input.value);
        const open = step === (end === "low" ? 0 : STEPS);
        // Rounded outwards in the fourth digit, so that a model at the slider's place stays in.
        setLimit(name, end, open ? null : rounded(scale.value(step), end));
      }
    });
  }
}

function rounded(value, end) {
  if (value === 0) return 0;
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 3);
  return Number(((end === "low" ? Math.floor : Math.ceil)(value / unit) * unit).toPrecision(6));
}

$("budget-reset").addEventListener("click", () => change({ limits: new Map() }));
