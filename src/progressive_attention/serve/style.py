"""How the page looks: its introduction and its style sheet, which fetches nothing."""

INTRODUCTION = """
<h1>Progressive attention</h1>
<p class='soft'>Ask about one object: click a digit, or type a query. Gates on several layers close on what the query
does not ask for; the last layer chooses where to look.</p>
"""

STYLE = """
:root { --opacity: 0.7; --right: #0060a0; --wrong: #b84a00; }
.dark { --right: #56b4e9; --wrong: #f09050; }
.gradio-container { max-width: 76rem !important; }
h1 { font-size: 1.5rem; margin: 0; }
.soft { color: var(--body-text-color-subdued); font-size: .9rem; font-weight: 400; }
.right { color: var(--right); font-weight: 600; } .wrong { color: var(--wrong); font-weight: 600; }
.notice { border-left: 4px solid var(--wrong); padding: .6rem .8rem; margin: 0; overflow-wrap: anywhere;
  background: var(--background-fill-secondary); }
#page { display: grid !important; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); align-items: start;
  grid-template: "question answer" auto "choices answer" 1fr / minmax(0, 2fr) minmax(0, 3fr); gap: 1rem; }
#question { grid-area: question; } #answer { grid-area: answer; } #choices { grid-area: choices; }
#page > *, #ask-row > * { min-width: 0 !important; width: 100%; }
#ask-row { flex-wrap: nowrap; align-items: stretch; } #ask { max-width: 6rem; }
#picture img { width: 100% !important; height: 100% !important; object-fit: contain !important;
  image-rendering: pixelated; cursor: crosshair; }
.legend { display: flex; align-items: center; gap: .5rem; font-size: .85rem; }
.legend img { width: 8rem; height: .8rem; }
.answers { display: grid; gap: 1.5rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.answer { min-width: 0; } .answer h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
.answer p { margin: .2rem 0; } .said { font-size: 1.3rem; } .verdict { font-size: .95rem; }
.bars { width: 100%; font-size: .85rem; border-collapse: collapse; margin: .4rem 0; }
.bars th { text-align: left; font-weight: 400; width: 5rem; padding: 1px 0; overflow-wrap: anywhere; }
.bars td { padding: 1px 4px; border: 0; } .bars i { display: block; height: .7rem; min-width: 1px; background: #0072b2; }
.bars .number { width: 4rem; text-align: right; font-variant-numeric: tabular-nums; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .6rem; }
.tiles figure { margin: 0; min-width: 0; } .tiles figcaption { font-size: .8rem; line-height: 1.25; margin-top: .2rem; }
.tiles .soft { font-size: .75rem; }
.square { position: relative; aspect-ratio: 1; }
.square img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; image-rendering: pixelated; }
.square .heat { opacity: var(--opacity); }
#cases .caption-label { position: static; max-width: none; font-size: .75rem; white-space: normal; }
@media (max-width: 48rem) {
  #page { grid-template: "question" auto "answer" auto "choices" auto / minmax(0, 1fr); }
  .gradio-container main { padding: .5rem !important; }
}
"""
