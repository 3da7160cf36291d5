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
.range { position: relative; overflow: hidden; height: 6px; margin: 4px 0 6px; border-radius: 3px;
  background: var(--rule); }
.range i { position: absolute; top: 0; bottom: 0; border-radius: 3px; background: var(--accent); }
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
.failures { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 24px; }
.failure { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
figure { margin: 0; min-width: 0; }
figure img, .gone { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px; background: #ffffff;
  border: 2px solid var(--rule); }
.gone { padding: 8px; overflow: hidden; font-size: 11px; color: #66717f; overflow-wrap: anywhere; }
.wrong img, .wrong .gone { border-color: var(--wrong); }
.right img, .right .gone { border-color: var(--right); }
figcaption { margin-top: 4px; font-size: 12px; line-height: 1.35; color: var(--pale); overflow-wrap: anywhere; }
figcaption b { display: block; color: var(--ink); font-weight: 500; }
.wrong figcaption b { color: var(--wrong); }
.right figcaption b { color: var(--right); }
"""
