// How do plots look in the light, in the dark and on paper? They take the colours of the page.
let printing = false;
const dark = matchMedia("(prefers-color-scheme: dark)");
const paper = matchMedia("print");
const settings = {
  responsive: true, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false,
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
};

function colours() {
  if (printing || paper.matches) return { ink: "#000000", line: "#bbbbbb", grey: "#777777", ground: "#ffffff" };
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "line", "grey", "ground"].map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function layoutOf(own) {
  const { ink, line, ground } = colours();
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true };
  const font = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: ink };
  return {
    ...own, template: undefined, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, autosize: true,
    hoverlabel: { bgcolor: ground, bordercolor: line, font: { color: ink } },
    xaxis: { ...own.xaxis, ...axis }, yaxis: { ...own.yaxis, ...axis },
  };
}

const draw = (target, data, layout) => Plotly.react(target, data, layoutOf(layout), settings);

function drawEverything() {
  for (const [part] of parts) part();
}

dark.addEventListener("change", drawEverything);
paper.addEventListener("change", () => {
  if (!printing) drawEverything(); // else it was done before, when sizes could still be measured
});
for (const [event, on] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    printing = on;
    document.querySelectorAll("details").forEach(box => {
      if (on && !box.open && !box.classList.contains("no-print")) { box.open = true; box.dataset.opened = "1"; }
      if (!on && box.dataset.opened) { box.open = false; delete box.dataset.opened; }
    });
    drawEverything();
    // Half of an A4 page beside another, at the resolution of the screen.
    document.querySelectorAll(".figure.js-plotly-plot").forEach(target => {
      const half = target.closest(".fronts, .two");
      // Room for two lines of a legend: nothing is laid out again once the page is being printed.
      const size = { width: half ? 330 : 680, autosize: false, "margin.t": target._fullLayout.showlegend ? 64 : 16 };
      Plotly.relayout(target, on ? size : { width: null, autosize: true });
    });
  });
}
