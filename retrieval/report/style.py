"""What do the HTML reports look like? One style sheet, light and dark, without anything to load."""

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --panel: #ffffff; --ink: #1c2530; --pale: #66717f;
  --rule: #e1e5eb; --accent: #2f6fed; --wash: #2f6fed22; --wrong: #c2412d; --right: #2c8a57; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --panel: #1d232b; --ink: #e6eaf0; --pale: #98a3b1;
  --rule: #313a45; --accent: #6f9dff; --wash: #6f9dff22; --wrong: #f0806c; --right: #5cc48b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { margin: 0 0 4px; font-size: 28px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 17px; }
header p, .note { color: var(--pale); margin: 0 0 12px; }
.note { font-size: 13px; margin-top: 8px; }
section { background: var(--panel); border: 1px solid var(--rule); border-radius: 12px;
  padding: 20px; margin-top: 24px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px;
  background: none; border: 0; padding: 0; }
.card { background: var(--panel); border: 1px solid var(--rule); border-radius: 12px; padding: 16px; }
.card h2 { margin: 0; font-size: 13px; font-weight: 500; color: var(--pale); }
.card strong { display: block; font-size: 30px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { font-size: 13px; color: var(--pale); font-variant-numeric: tabular-nums; }
.bar { position: relative; overflow: hidden; height: 6px; margin: 4px 0 6px; border-radius: 3px;
  background: var(--rule); }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--accent); }
.bar .range { border-radius: 3px; }
.bar .former { background: var(--pale); opacity: 0.6; }
.bar .lost { background: var(--wrong); }
svg { width: 100%; max-width: 720px; display: block; }
svg line { stroke: var(--rule); }
svg text { fill: var(--pale); font-size: 11px; }
svg polygon { fill: var(--wash); }
svg polyline { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--rule); text-align: right; overflow-wrap: anywhere; }
th { color: var(--pale); font-size: 13px; font-weight: 500; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
.failures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 24px; }
.failure { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
figure { margin: 0; min-width: 0; }
figure img, .gone { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
  background: #ffffff; border: 2px solid var(--rule); }
.gone { padding: 8px; overflow: hidden; font-size: 11px; color: var(--pale); background: var(--paper);
  overflow-wrap: anywhere; }
.wrong img, .wrong .gone { border-color: var(--wrong); }
.right img, .right .gone { border-color: var(--right); }
figcaption { margin-top: 4px; font-size: 12px; line-height: 1.35; color: var(--pale); overflow-wrap: anywhere; }
figcaption b { display: block; color: var(--ink); font-weight: 500; }
.wrong figcaption b { color: var(--wrong); }
.right figcaption b { color: var(--right); }
ul { margin: 0; padding-left: 20px; }
li { margin: 4px 0; overflow-wrap: anywhere; }
dl { margin: 0; display: grid; gap: 14px 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)); }
dt { color: var(--pale); font-size: 13px; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.settings { gap: 0 24px; }
.settings div { display: flex; justify-content: space-between; gap: 12px; padding: 5px 0; font-size: 13px;
  border-bottom: 1px solid var(--rule); }
.settings dd { text-align: right; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 16px; }
.chart { display: block; width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { .chart { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; } }
details { margin-top: 16px; }
summary { cursor: pointer; color: var(--pale); font-size: 13px; }
details th, details td { white-space: nowrap; font-size: 13px; }
.beside { display: grid; grid-template-columns: minmax(0, 400px) minmax(0, 1fr); gap: 24px; align-items: center; }
.augmented { display: grid; gap: 20px; }
.row { display: grid; grid-template-columns: 132px minmax(0, 1fr); gap: 24px; align-items: start; }
.seen { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 10px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(220px, 100%), 1fr)); gap: 24px; }
.pair { display: grid; grid-template-columns: repeat(2, 1fr); gap: 4px 10px; align-content: start; }
.pair p { grid-column: 1 / -1; margin: 0; font-size: 12px; color: var(--pale); font-variant-numeric: tabular-nums; }
@media (max-width: 640px) { main { padding: 24px 12px 48px; } section { padding: 16px; }
  .beside { grid-template-columns: minmax(0, 1fr); }
  .row { grid-template-columns: 84px minmax(0, 1fr); gap: 12px; }
  .seen { grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)); gap: 8px; } }
"""
