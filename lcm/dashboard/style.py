"""The look of the dashboard: one style sheet, in light and dark, on a desk and on a phone.

Knows colours with enough contrast (4.5 to 1 for text), and that Voila follows the reader's system while JupyterLab
has a theme of its own. Refuses to know what is shown.
"""

from lcm.evaluation.tables import TABLE_STYLE

# JupyterLab's own variables are what ipywidgets draw themselves with; inside the dashboard they get its colours.
STYLE = (
    """
.lcm-dash { color-scheme: light; --ink: light-dark(#1f2326, #e8e8e8); --grey: light-dark(#595f64, #a9afb4);
  --page: light-dark(#f5f5f4, #131415); --card: light-dark(#fff, #1d1f21); --line: light-dark(#d5d7d9, #3d4144);
  --bar: light-dark(#9fcbe6, #1b5a80); --mark: light-dark(#0b5f87, #7cc4e8); --on-mark: light-dark(#fff, #0d1113);
  --bad: light-dark(#a3200b, #ff9d8a); --good: light-dark(#17632f, #7fd69b); --edge: light-dark(#7c8388, #83898e);
  --jp-ui-font-color0: var(--ink); --jp-ui-font-color1: var(--ink); --jp-ui-font-color2: var(--grey);
  --jp-widgets-color: var(--ink); --jp-widgets-label-color: var(--ink); --jp-content-font-color1: var(--ink);
  --jp-widgets-input-color: var(--ink); --jp-widgets-input-background-color: var(--card);
  --jp-widgets-input-border-color: var(--edge); --jp-layout-color1: var(--card); --jp-layout-color2: var(--page);
  --jp-layout-color3: var(--mark); --jp-border-color1: var(--edge); --jp-widgets-inline-height: 40px;
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 62em; margin: 0 auto;
  padding: .5em 1em 3em; box-sizing: border-box; width: 100%; overflow: visible; }
body[data-jp-theme-light="false"] .lcm-dash { color-scheme: dark; }
body[data-voila] .lcm-dash { color-scheme: light dark; }
body[data-voila] :is(#main, #rendered_cells) { background: transparent; }
body[data-voila] { background: light-dark(#f5f5f4, #131415); color-scheme: light dark; margin: 0; }
.lcm-dash .widget-html, .lcm-dash .widget-html-content { line-height: 1.5; font-size: 1em; height: auto;
  white-space: normal; overflow: visible; min-width: 0; max-width: 100%; }
.lcm-dash > .widget-html { width: 100%; }
.lcm-dash .widget-box { overflow: visible; min-width: 0; max-width: 100%; }
.lcm-dash h1 { font-size: 1.5em; margin: .2em 0; } .lcm-dash h2 { font-size: 1.2em; margin: 1.6em 0 .4em; }
.lcm-dash h3 { font-size: 1em; margin: 1em 0 .3em; } .lcm-dash p { margin: 0 0 .6em; max-width: 45em; }
.lcm-dash p, .lcm-dash li, .lcm-dash td, .lcm-dash th, .lcm-dash code { overflow-wrap: anywhere; }
.lcm-dash small, .lcm-dash .quiet { color: var(--grey); font-size: .92em; }
.lcm-dash .bad { color: var(--bad); } .lcm-dash .good { color: var(--good); }
.lcm-dash code { background: var(--card); border: 1px solid var(--line); border-radius: 4px; padding: .1em .3em;
  color: var(--ink); white-space: pre-wrap; }
.lcm-dash .jupyter-button { height: auto; min-height: 40px; line-height: 1.3; padding: .4em 1.1em; border-radius: 6px;
  border: 1px solid var(--edge); background: var(--card); color: var(--ink); width: auto; font-size: 1em;
  align-self: flex-start; margin: 2px 4px 2px 0;
  box-shadow: none; white-space: normal; }
.lcm-dash .jupyter-button.mod-primary, .lcm-dash .jupyter-button.mod-active { background: var(--mark);
  color: var(--on-mark); border-color: var(--mark); }
.lcm-dash .jupyter-button.mod-danger { background: var(--card); color: var(--bad); border-color: var(--bad); }
.lcm-dash .jupyter-button:disabled { opacity: 1; color: var(--grey); background: var(--page); }
.lcm-dash :is(button, input, textarea, select, summary, a):focus-visible, .lcm-dash .drop:focus-within {
  outline: 3px solid var(--mark); outline-offset: 2px; }
.lcm-dash .widget-toggle-buttons, .lcm-dash .widget-text, .lcm-dash .widget-textarea, .lcm-dash .widget-dropdown {
  width: 100%; height: auto; overflow: visible; }
.lcm-dash .widget-textarea, .lcm-dash .widget-text, .lcm-dash .widget-dropdown { flex-direction: column;
  max-width: 45em; align-items: stretch; }
.lcm-dash :is(.widget-text, .widget-textarea, .widget-dropdown) > .widget-label { width: auto; max-width: none;
  text-align: left; height: auto; white-space: normal; line-height: 1.4; }
.lcm-dash :is(.widget-text input, .widget-dropdown select) { flex: 0 0 auto; height: 42px; }
.lcm-dash .pending-row > .buttons { margin-top: .4em; } .lcm-dash .forest { margin: 0 0 1em; }
.lcm-dash textarea, .lcm-dash .widget-text input, .lcm-dash select { width: 100%; font: inherit; border-radius: 6px;
  min-height: 40px; padding: .4em .6em; box-sizing: border-box; border: 1px solid var(--edge); color: var(--ink);
  background: var(--card); }
.lcm-dash .drop { display: block; margin: 1em 0; border: 2px dashed var(--edge); border-radius: 10px;
  background: var(--card);
  padding: 1.4em 1em; text-align: center; cursor: pointer; }
.lcm-dash .drop.over { border-color: var(--mark); border-style: solid; }
.lcm-dash .drop input { display: block; margin: .8em auto 0; max-width: 100%; color: var(--ink); font: inherit; }
.lcm-dash .examples { display: flex; flex-wrap: wrap; gap: .6em; margin: .4em 0 1em; }
.lcm-dash .examples button { border: 2px solid var(--line); background: none; border-radius: 8px; padding: 0;
  cursor: pointer; overflow: hidden; }
.lcm-dash .examples img { display: block; width: 96px; height: 72px; object-fit: cover; }
.lcm-dash .status { min-height: 1.5em; margin: .6em 0; }
.lcm-dash .status.wrong { color: var(--bad); font-weight: 600; }
.lcm-dash .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1em; }
.lcm-dash .answer { display: grid; gap: 1.2em; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
.lcm-dash .answer img { width: 100%; max-height: 420px; object-fit: contain; display: block; border-radius: 6px; }
.lcm-dash .caption { font-size: 1.3em; font-weight: 600; line-height: 1.3; }
.lcm-dash .bars { list-style: none; margin: 0; padding: 0; }
.lcm-dash .bars li { display: flex; justify-content: space-between; gap: .6em; padding: .1em .5em; margin: 3px 0;
  border-radius: 4px; background: linear-gradient(var(--bar) 0 0) 0 / var(--share) 100% no-repeat; }
.lcm-dash .glances, .lcm-dash .figures { display: grid; gap: .8em;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 150px), 1fr)); }
.lcm-dash .figures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26em), 1fr)); }
.lcm-dash figure { margin: 0; } .lcm-dash figure img { width: 100%; display: block; border-radius: 6px; }
.lcm-dash figcaption { font-weight: 600; }
.lcm-dash .pending { display: grid; grid-template-columns: 110px minmax(0, 1fr); gap: 1em; }
.lcm-dash .pending img { width: 110px; height: 90px; object-fit: cover; border-radius: 6px; display: block; }
.lcm-dash .pending p { margin: 0 0 .2em; }
.lcm-dash .pending-row { border-top: 1px solid var(--line); padding: .8em 0; }
.lcm-dash .buttons { flex-wrap: wrap; gap: .4em; }
.lcm-dash .range { position: relative; height: 1.1em; min-width: 8em; background: var(--page); border-radius: 4px; }
.lcm-dash .range i { position: absolute; top: 0; bottom: 0; left: 0; border-radius: 4px; background: var(--bar); }
.lcm-dash .range b { position: absolute; top: 45%; height: 10%; background: var(--ink); }
.lcm-dash .forest div { display: grid; gap: .1em .8em; align-items: center; margin: .4em 0;
  grid-template: "name bar score" / minmax(6em, 14em) 1fr 3.2em; }
.lcm-dash .forest .range { grid-area: bar; } .lcm-dash .forest .score { grid-area: score; text-align: right; }
@media (prefers-color-scheme: dark) { body[data-voila] .lcm-dash .drawn { filter: invert(.93) hue-rotate(180deg); } }
body:not([data-voila])[data-jp-theme-light="false"] .lcm-dash .drawn { filter: invert(.93) hue-rotate(180deg); }
@media (max-width: 46em) { .lcm-dash { padding: .2em .7em 3em; } .lcm-dash .answer { grid-template-columns: 1fr; }
  .lcm-dash .forest div { grid-template: "name score" "bar bar" / 1fr max-content; } }
"""
    + TABLE_STYLE
)
