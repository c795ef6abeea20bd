"""The frame of the page: HTML, its style, and a script that sorts the table."""

import string

PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --back: #f5f7fa; --link: #0b61a4 }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif }
main { max-width: 1500px; margin: 0 auto; padding: 28px 32px 60px }
h1 { margin: 0 0 4px; font-size: 26px }
h2 { margin: 40px 0 10px; font-size: 19px }
h3 { margin: 0 0 6px; font-size: 15px }
p { margin: 6px 0; max-width: 150ch }
h1, h3, code, figcaption, li { overflow-wrap: anywhere }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
.soft { color: var(--soft); font-size: 13px }
dl.overview { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px;
  margin: 12px 0 0; font-size: 14px }
dl.overview dt { color: var(--soft) }
dl.overview dd { margin: 0; overflow-wrap: anywhere }
.card { background: white; border: 1px solid var(--line); border-radius: 8px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: 6px 9px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal;
  min-width: 60px; max-width: 150px; overflow-wrap: break-word }
th small, td small { display: block; font-weight: 400; color: var(--soft); font-size: 11.5px }
tr:last-child td { border-bottom: 0 }
tbody tr:hover td { background: #f8fafc }
th.left, td.left { text-align: left }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0;
  background: white; font-weight: 600; border-right: 1px solid var(--line) }
table.sorts th { cursor: pointer }
td.none { color: #9aa5b1 }
.state { border-radius: 9px; padding: 1px 9px; font-size: 12px; font-weight: 600 }
.done { background: #d9f2e3; color: #14693a }
.partial { background: #fdf0cc; color: #83590a }
.failed { background: #fbdcdc; color: #96231f }
.missing { background: #e4e7eb; color: #52606d }
.plots { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(430px, 1fr)) }
figure { margin: 0; padding: 12px }
figure.wide { grid-column: 1 / -1 }
figure img { display: block; width: 100%; height: auto }
figure.wide img { width: auto; max-width: 100% }
figure.double { grid-column: span 2 }
figcaption { color: var(--soft); font-size: 12.5px; margin-top: 6px }
.pictures { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr) }
.trial { padding: 14px }
.pair { display: flex; gap: 14px; align-items: flex-start; flex-wrap: wrap }
.pair figure { padding: 0; flex: 0 1 auto; min-width: 0 }
.pair img { width: auto; max-width: 100%; max-height: 300px; image-rendering: pixelated;
  border: 1px solid var(--line) }
.placeholder { color: var(--soft); border: 1px dashed #cbd2d9; border-radius: 6px;
  padding: 10px; font-size: 13px; overflow-wrap: anywhere }
ul.notes { margin: 6px 0; padding-left: 20px; font-size: 13.5px }
details summary { cursor: pointer; color: var(--soft); font-size: 13.5px; margin: 8px 0 }
@media (max-width: 700px) { main { padding: 16px }
  figure.double { grid-column: auto }
  .plots { grid-template-columns: minmax(0, 1fr) } }
</style>
</head>
<body>
<main>
$body
</main>
<script>
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const column = head.cellIndex;
    const descending = head.dataset.order !== "descending";
    for (const other of head.parentNode.cells) delete other.dataset.order;
    if (descending) head.dataset.order = "descending";
    const key = (row) =>
      row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const order = key(a).localeCompare(key(b), "en", { numeric: true });
      const x = Number(key(a) || NaN), y = Number(key(b) || NaN);
      if (Number.isNaN(x) && Number.isNaN(y)) return descending ? order : -order;
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return descending ? y - x : x - y;
    });
    body.append(...rows);
  });
}
</script>
</body>
</html>
""")
