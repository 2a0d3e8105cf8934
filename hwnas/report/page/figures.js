// Which plots follow from the run alone? They are made beforehand; here they get the page's colours and the chosen model.
const figures = JSON.parse(document.getElementById("report-figures").textContent);

function drawPlain() {
  for (const target of document.querySelectorAll(".plain")) {
    const figure = figures[target.dataset.figure];
    const data = figure.data.map(trace => ({ ...trace }));
    for (const trace of data) {
      if (trace.customdata && chosen()) {
        const at = trace.customdata.indexOf(state.key);
        Object.assign(trace, { selectedpoints: at < 0 ? undefined : [at], selected: { marker: { size: 15 } }, unselected: { marker: { opacity: 0.4 } } });
      }
    }
    draw(target, data, { ...figure.layout, xaxis: { ...figure.layout.xaxis }, yaxis: { ...figure.layout.yaxis } });
  }
}
parts.push([drawPlain, ["key"]]);

for (const target of document.querySelectorAll(".plain[data-device]")) {
  Plotly.newPlot(target, [], layoutOf({}), settings);
  target.on("plotly_click", ({ points }) => {
    const key = points.map(point => point.customdata).find(found => modelOf(target.dataset.device, found));
    if (key) choose(target.dataset.device, key);
  });
}
drawEverything();
// A link to a model: the page's address says which one is chosen.
const asked = location.hash.slice(1).split("/");
for (const device of devices.values()) {
  for (const model of device.models) {
    if (asked[0] === encodeURIComponent(device.name) && asked[1] === encodeURIComponent(model.key)) choose(device.name, model.key);
  }
}
