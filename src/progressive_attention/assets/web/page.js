"use strict";
// The page: unpack what is inside, ask, show.

const MOST_PIXELS = 2 ** 24; // of a picture: what every browser's canvas holds
const MOST_BARS = 8;
const ABSENT = "absent"; // the attribute that says that nothing asked for is there
const element = (id) => document.getElementById(id);

let about, network; // what the page says of its network, and its session
const state = { pixels: null, digits: [], query: null, answer: null, shown: null, scene: -1 };
let asked = Promise.resolve(); // questions are answered in turn

// What the page holds under a name: bytes, packed as gzip in base64.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackedText(id) {
  return new TextDecoder().decode(await unpacked(id));
}

// onnxruntime-web from within the page; one thread, as a page without a server's consent may not have more.
async function session() {
  const module = new Blob([await unpacked("runtime-module")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(module));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await unpacked("runtime-wasm")).buffer;
  const opened = await ort.InferenceSession.create(await unpacked("model"));
  return { ort, opened };
}

// One question about RGB pixels (side x side x 3): probabilities by attribute, and maps by name on the picture's pixels.
async function ask(pixels, query) {
  const side = about.image_size;
  const image = new Float32Array(3 * side * side); // channels first
  pixels.forEach((value, i) => (image[(i % 3) * side * side + Math.floor(i / 3)] = value / 255));
  const { ort, opened } = network;
  const started = performance.now();
  const found = await opened.run({
    image: new ort.Tensor("float32", image, [1, 3, side, side]),
    query: new ort.Tensor("int64", [BigInt(about.query_names.indexOf(query))], [1]),
  });
  const milliseconds = performance.now() - started;
  const probability = (i) => Math.exp(found.log_prob.data[i]);
  const probabilities = about.attribute_names.map((name, i) => [name, probability(i)]);
  const present = !found.presence || found.presence.data[0] >= about.absence.threshold;
  return { query, probabilities, present, maps: mapsOf(found), milliseconds };
}

// Each is drawn smooth, from 0 to its largest value: gates that close would be black from 0 to 1. The first one is shown
// first.
function mapsOf(found) {
  const [last, cell] = [about.layers.length, about.layers[0]?.cell ?? [1, 1]];
  const named = about.layers.map((layer, i) => {
    const name = i + 1 < last ? `gate ${i + 1}` : "softmax";
    return [name, placed(found[`attention_${i + 1}`].data, layer), layer.cell];
  });
  for (const name of ["flow", "activation"]) {
    const map = found[`attention_${name}`];
    if (map) named.unshift([name, map.data, cell]);
  }
  if (found.attention_accumulated) named.push([last ? "all" : "region", found.attention_accumulated.data, cell]);
  return named.map(([name, values, size]) => {
    const smooth = smoothed(values, about.image_size, size);
    return { name, values, smooth, high: highest(values) };
  });
}

// --- what is shown ---------------------------------------------------------------------------------------------------

function say(text) {
  element("state").textContent = text;
  element("state").hidden = !text;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

function showPicture(pixels, digits, credit) {
  Object.assign(state, { pixels, digits });
  const side = about.image_size;
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) image.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  Object.assign(element("picture"), { width: side, height: side });
  element("picture").getContext("2d").putImageData(image, 0, 0);
  element("picture").style.cursor = digits.length ? "pointer" : "";
  element("credit").textContent = credit;
  element("credit").hidden = !credit;
  const how = digits.length ? "Click a digit to ask about it." : "Ask with the buttons.";
  element("hint").textContent = `${how} A picture of your own may be dropped onto this one; it stays on this device.`;
}

async function showScene(index) {
  state.scene = index % about.scenes.length;
  const { picture, digits, credit, query } = about.scenes[state.scene];
  const file = new Blob([Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0))]);
  const { pixels, width, height } = await decoded(file, MOST_PIXELS);
  showPicture(fitted(pixels, height, width, about.image_size), digits, credit);
  question(query);
}

// A file of the user's; what can't be read is told and changes nothing.
async function showOwn(file) {
  if (!file) return;
  try {
    const { pixels, width, height } = await decoded(file, MOST_PIXELS);
    say("");
    showPicture(fitted(pixels, height, width, about.image_size), [], "");
    question(state.query ?? about.query_names[0]);
  } catch (error) {
    say(`${file.name} can't be opened as a picture: ${error.message}`);
  }
}

// Ask about the picture that is shown now, and show the answer if it still is.
function question(query) {
  const pixels = state.pixels;
  asked = asked
    .then(() => ask(pixels, query))
    .then((answer) => pixels === state.pixels && showAnswer(answer))
    .catch((error) => say(`The question could not be answered: ${error.message}`));
}

function showAnswer(answer) {
  Object.assign(state, { query: answer.query, answer });
  const shown = answer.probabilities.filter(([name]) => !about.absence || name !== ABSENT); // the threshold tells that
  const ranked = shown.sort((one, other) => other[1] - one[1]);
  const best = ranked.slice(0, about.likelihood === "softmax" ? 1 : 3);
  const said = best.map(([name, probability]) => `${name} (${percent(probability)})`).join(", ");
  element("answer").textContent = `${answer.query} → ${answer.present ? "" : "not found; if it were there: "}${said}`;
  showTruth(answer, ranked[0][0]);
  showPoint(answer, ranked[0][0]);
  element("bars").replaceChildren(...ranked.slice(0, MOST_BARS).map(([name, probability]) => bar(name, probability)));
  for (const button of element("queries").children) button.ariaPressed = String(button.textContent === answer.query);
  showMaps();
}

// What is right, where it is known, and a box around it.
function showTruth({ query, present }, best) {
  const digit = state.digits.find((one) => one.query === query);
  const right = digit ? present && best === digit.attribute : !present || best === ABSENT;
  const truth = digit ? `it is ${digit.attribute}` : `there is no ${query} in this scene`;
  element("truth").textContent = state.digits.length ? `${right ? "✓ Right" : "✗ Wrong"}: ${truth}.` : "";
  element("truth").className = right ? "" : "wrong";
  element("box").hidden = !digit;
  if (!digit) return;
  const [x0, y0, x1, y1] = digit.box.map((pixel) => (100 * pixel) / about.image_size);
  Object.assign(element("box").style, { left: `${x0}%`, top: `${y0}%`, width: `${x1 - x0}%`, height: `${y1 - y0}%` });
}

// A ring around the highest cell of the map that is shown first, unless nothing was found.
function showPoint({ maps, present }, best) {
  const point = maps.length && present && best !== ABSENT ? highestPoint(maps[0].values, about.image_size) : null;
  element("point").hidden = !point;
  if (!point) return;
  element("point").ariaLabel = `It points at x ${Math.round(point.x)}, y ${Math.round(point.y)}`;
  const percents = [point.x, point.y].map((pixel) => `${(100 * pixel) / about.image_size}%`);
  Object.assign(element("point").style, { left: percents[0], top: percents[1] });
}

function bar(name, probability) {
  const [line, label, track, fill, value] = ["li", "span", "div", "span", "data"].map((tag) =>
    document.createElement(tag),
  );
  Object.assign(label, { textContent: name });
  Object.assign(value, { textContent: percent(probability), value: probability });
  track.className = "bar";
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  line.append(label, track, value);
  return line;
}

// The chosen map over the picture, and all of them small.
function showMaps() {
  const { maps } = state.answer;
  element("attention").hidden = !maps.length;
  element("explained").hidden = !about.layers.length;
  if (!maps.length) return;
  state.shown ??= maps[0].name;
  const buttons = maps.map((map) => {
    const button = Object.assign(document.createElement("button"), { type: "button", ariaPressed: "false" });
    const canvas = document.createElement("canvas");
    const largest = Object.assign(document.createElement("small"), { textContent: `≤ ${rounded(map.high)}` });
    paint(canvas, map.smooth, about.image_size, highest(map.smooth), about.colours);
    button.append(canvas, map.name, largest);
    button.onclick = () => showMap(map);
    return button;
  });
  const focused = [...element("maps").children].indexOf(document.activeElement);
  element("maps").replaceChildren(...buttons);
  buttons[focused]?.focus();
  showMap(maps.find((map) => map.name === state.shown));
}

function showMap(map) {
  state.shown = map.name;
  paint(element("overlay"), map.smooth, about.image_size, highest(map.smooth), about.colours);
  element("high").textContent = rounded(map.high);
  const { maps } = state.answer;
  [...element("maps").children].forEach((button, i) => (button.ariaPressed = String(maps[i].name === map.name)));
}

// Two digits, as short as can be.
function rounded(value) {
  return String(Number(value.toPrecision(2)));
}

// --- what can be done ------------------------------------------------------------------------------------------------

// The digit under a click: the smallest box, as boxes may overlap.
function digitAt(event) {
  const { left, top, width, height } = element("picture").getBoundingClientRect();
  const x = ((event.clientX - left) / width) * about.image_size;
  const y = ((event.clientY - top) / height) * about.image_size;
  const area = ({ box: [x0, , x1] }) => x1 - x0;
  const inside = ({ box: [x0, y0, x1, y1] }) => x0 <= x && x < x1 && y0 <= y && y < y1;
  return state.digits.filter(inside).sort((one, other) => area(one) - area(other))[0];
}

function connect() {
  element("picture").onclick = (event) => {
    const digit = digitAt(event);
    if (digit) question(digit.query);
  };
  element("next").onclick = () => showScene(state.scene + 1);
  element("next").hidden = about.scenes.length < 2;
  element("file").onchange = ({ target }) => showOwn(target.files[0]).then(() => (target.value = ""));
  element("opacity").oninput = ({ target }) => (element("overlay").style.opacity = target.value / 100);
  element("opacity").oninput({ target: element("opacity") });
  const stage = element("stage");
  const hovering = (on) => (event) => {
    event.preventDefault();
    stage.classList.toggle("dropping", on);
  };
  stage.ondragover = hovering(true);
  stage.ondragleave = hovering(false);
  stage.ondrop = (event) => {
    hovering(false)(event);
    showOwn(event.dataTransfer.files[0]);
  };
  element("licences").ontoggle = async () => (element("notices").textContent ||= await unpackedText("licence-texts"));
}

// What stands still: names, query buttons, the scale of colours.
function describe() {
  const trained = about.data ? ` trained on ${about.data}` : "";
  const measured = about.accuracy ? `, ${(100 * about.accuracy).toFixed(2)}\u00a0% right on its test questions` : "";
  element("network").textContent = `The network: ${about.model}${trained}${measured}.`;
  element("version").textContent = about.runtime_version;
  element("queries").className = about.query_names.every((name) => name.length < 3) ? "digits" : "words";
  const buttons = about.query_names.map((name) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.onclick = () => question(name);
    return button;
  });
  element("queries").replaceChildren(...buttons);
  const scale = new ImageData(256, 1);
  about.colours.forEach((colour, i) => scale.data.set([...colour, 255], 4 * i));
  element("scale").getContext("2d").putImageData(scale, 0, 0);
}

async function start() {
  about = JSON.parse(await unpackedText("about"));
  network = await session();
  describe();
  connect();
  element("ask").hidden = false;
  say("");
  if (about.scenes.length) await showScene(0);
  else showPicture(new Uint8ClampedArray(3 * about.image_size ** 2), [], "");
}

start().catch((error) => {
  const needed = "it needs one of mid-2023 or later (Chrome, Edge, Firefox, Safari)";
  say(`This browser can't run the page: ${needed}. What failed: ${error.message}`);
});
