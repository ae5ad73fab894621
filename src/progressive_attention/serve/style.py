"""How the page looks: its introduction and its style sheet, which fetches nothing."""

INTRODUCTION = """
<h1>Progressive attention</h1>
<p class='soft'>Click a digit to ask for its colour, or drop your own picture and type a query. Gates on several layers
close on what is not asked for; the last layer chooses where to look.</p>
"""

STYLE = """
:root { --opacity: 1; --soft: #5a5a5a; --right: #0060a0; --wrong: #b84a00; }
.dark { --soft: #a8a8a8; --right: #56b4e9; --wrong: #f09050; }
.gradio-container { max-width: 76rem !important; }
h1 { font-size: 1.5rem; margin: 0; }
.soft { color: var(--soft); font-size: .9rem; font-weight: 400; }
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
.columns { display: grid; gap: 1.2rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.columns section { min-width: 0; }
.columns h3 { font-size: 1rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
.columns p { margin: .2rem 0; } .columns .said { font-size: 1.3rem; }
.bars { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; gap: 2px .6rem;
  align-items: center; font-size: .85rem; margin-top: .4rem; }
.bars i { height: .7rem; min-width: 1px; background: #0072b2; }
.bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.tiles { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem; }
@media (min-width: 62rem) { section:only-child > .tiles { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
.tiles figure { margin: 0; min-width: 0; } .tiles figcaption { font-size: .8rem; line-height: 1.25; margin-top: .2rem; }
.tiles .soft { font-size: .75rem; }
.tiles figure:nth-child(-n+2) { grid-column: span 2; }
.square { position: relative; aspect-ratio: 1; overflow: hidden; }
.square img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; image-rendering: pixelated; }
.square .grey { filter: grayscale(1) brightness(.7); } .square .heat { opacity: var(--opacity); }
.square .ring { position: absolute; width: 14%; height: 14%; transform: translate(-50%, -50%); border-radius: 50%;
  border: 2px solid #56b4e9; box-shadow: 0 0 0 1px #000000, inset 0 0 0 1px #000000; }
#cases .grid-wrap { max-height: none; }
#cases .grid-container { grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)) !important; }
#cases .thumbnail-item { aspect-ratio: auto; height: auto; display: block; background: none; }
#cases img { aspect-ratio: 1; height: auto; width: 100%; image-rendering: pixelated; }
#cases .caption-label { position: static; max-width: none; width: auto; height: auto; font-size: .75rem;
  white-space: normal; background: none; color: var(--body-text-color); border: 0; padding: .2rem; text-align: left; }
@media (max-width: 48rem) {
  #page { grid-template: "question" auto "answer" auto "choices" auto / minmax(0, 1fr); }
  .gradio-container main { padding: .5rem !important; }
}
"""
