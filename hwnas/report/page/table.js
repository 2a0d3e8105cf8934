// Which rows are shown, in which order, and which is chosen? The rows themselves stand in the page.
const table = $("models");
const rows = [...table.tBodies[0].rows];
const rowVisible = row => state.shown.has(row.dataset.device) && fits(modelOf(row.dataset.device, row.dataset.key));

function drawTable() {
  let first = null;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !rowVisible(row);
    const same = row.dataset.key === state.key;
    const isChosen = same && row.dataset.device === state.device;
    row.classList.toggle("chosen", isChosen);
    row.classList.toggle("same", same && !isChosen);
    row.setAttribute("aria-selected", isChosen);
    row.tabIndex = -1;
    if (!row.hidden && (first === null || isChosen)) first = row;
  }
  if (first) first.tabIndex = 0; // one stop for the tab key; arrows go on from there
}
parts.push([drawTable, ["device", "key", "shown", "limits"]]);

const chooseRow = row => choose(row.dataset.device, row.dataset.key);
table.tBodies[0].addEventListener("click", event => {
  const row = event.target.closest("tr");
  if (row) chooseRow(row);
});
table.tBodies[0].addEventListener("keydown", event => {
  const here = event.target.closest("tr");
  const among = [...table.tBodies[0].rows].filter(row => !row.hidden);
  const at = among.indexOf(here);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: among.length - 1, Enter: at, " ": at }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  const row = among[Math.min(among.length - 1, Math.max(0, to))];
  chooseRow(row);
  row.focus();
});
for (const heading of table.tHead.rows[0].cells) {
  heading.querySelector("button").addEventListener("click", () => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = row => {
      const text = row.cells[heading.cellIndex].dataset.value;
      return text === "" ? null : isNaN(text) ? text : Number(text);
    };
    // What is not known stands last, whatever the order.
    const order = (a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === null || right === null) return (left === null) - (right === null);
      return (left > right ? 1 : left < right ? -1 : 0) * (ascending ? 1 : -1);
    };
    table.tBodies[0].append(...[...rows].sort(order));
  });
}
