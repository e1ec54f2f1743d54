// Draw a digit; the exported ViT reads it with onnxruntime-web, on one thread, so that the page needs no special headers.
import { CELLS, cells } from "./strokes.mjs";

const place = document.querySelector(".live");
const base = new URL("made/", import.meta.url);
const paper = place.querySelector(".live-paper");
const pen = paper.getContext("2d", { willReadFrequently: true });
const answer = place.querySelector(".live-answer");
const choice = place.querySelector(".live-sample");
const INK = "#2f3b52";
const PATCH = 2, HEADS = 4;
let strokes = []; // of the drawing, each a list of points [x, y]
let sample = null; // the cells of a digit of the data set, while one is shown in place of a drawing

let session = null, runtime = null, bytes = null, busy = false, waiting = false;

async function read() {
  if (!session) return;
  if (busy) { waiting = true; return; }
  busy = true;
  const ink = sample ?? cells(strokes);
  if (ink === null) {
    show(null, new Float32Array(10), null);
  } else {
    const pixels = new Float32Array(3 * ink.length);
    for (let c = 0; c < 3; c++) pixels.set(ink.map((value) => (value - 0.5) / 0.5), c * ink.length);
    const tensor = new runtime.Tensor("float32", pixels, [1, 3, CELLS, CELLS]);
    const found = await session.run({ pixel_values: tensor });
    show(ink, found.probabilities.data, found["attn.0"].data);
  }
  busy = false;
  if (waiting) { waiting = false; await read(); }
}

const bars = Array.from({ length: 10 }, (_, digit) => {
  const row = document.createElement("div");
  row.className = "live-bar";
  row.innerHTML = `<span>${digit}</span><div><i></i></div><output></output>`;
  place.querySelector(".live-bars").append(row);
  return row;
});
const maps = Array.from({ length: HEADS + 1 }, (_, index) => {
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = CELLS * 12;
  canvas.setAttribute("role", "img");
  const words = document.createElement("figcaption");
  words.textContent = index === 0 ? "8 x 8" : `head ${index - 1}`;
  canvas.setAttribute("aria-label", index === 0 ? "the drawing as the model sees it" : `attention of head ${index - 1}`);
  figure.append(canvas, words);
  place.querySelector(".live-heads").append(figure);
  return canvas.getContext("2d");
});

function show(ink, chances, attention) {
  const best = chances.indexOf(Math.max(...chances));
  bars.forEach((row, digit) => {
    const percent = 100 * chances[digit];
    row.querySelector("i").style.width = `${percent}%`;
    row.querySelector("output").textContent = ink ? `${percent.toFixed(percent < 10 ? 1 : 0)} %` : "";
    row.classList.toggle("live-best", ink !== null && digit === best);
  });
  answer.textContent = ink ? `This is a ${best} (${(100 * chances[best]).toFixed(0)} %).` : "Draw a digit.";
  answer.dataset.digit = ink ? best : "";
  maps.forEach((context, index) => drawMap(context, ink, index === 0 ? null : attention, index - 1));
}

/** The cells, and over them the class token's weights for the patches, the strongest as the strongest. */
function drawMap(context, ink, attention, head) {
  const size = context.canvas.width / CELLS, patches = CELLS / PATCH, tokens = patches ** 2 + 1;
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  if (ink === null) return;
  ink.forEach((value, at) => {
    context.fillStyle = `rgba(125, 133, 144, ${value * (attention ? 0.45 : 1)})`;
    context.fillRect((at % CELLS) * size, Math.floor(at / CELLS) * size, size, size);
  });
  if (!attention) return;
  const start = head * tokens * tokens; // the row of the class token
  const weights = attention.slice(start + 1, start + tokens);
  const most = Math.max(...weights);
  weights.forEach((weight, at) => {
    context.fillStyle = `rgba(217, 130, 43, ${(0.75 * weight) / most})`;
    const side = PATCH * size;
    context.fillRect((at % patches) * side, Math.floor(at / patches) * side, side, side);
  });
}

// drawing

function at(event) {
  const box = paper.getBoundingClientRect();
  return [((event.clientX - box.left) * paper.width) / box.width, ((event.clientY - box.top) * paper.height) / box.height];
}
let drawing = false;
paper.addEventListener("pointerdown", (event) => {
  paper.setPointerCapture(event.pointerId);
  if (sample) clear();
  drawing = true;
  strokes.push([]);
  extend(at(event));
});
paper.addEventListener("pointermove", (event) => {
  if (drawing) extend(at(event));
});
for (const end of ["pointerup", "pointercancel"]) paper.addEventListener(end, () => { drawing = false; });

/** Add a point to the last stroke. */
function extend(point) {
  const stroke = strokes.at(-1);
  Object.assign(pen, { lineWidth: 18, lineCap: "round", lineJoin: "round", strokeStyle: INK });
  pen.beginPath();
  pen.moveTo(...(stroke.at(-1) ?? point));
  pen.lineTo(...point);
  pen.stroke();
  stroke.push(point);
  read();
}

function clear() {
  pen.clearRect(0, 0, paper.width, paper.height);
  [strokes, sample] = [[], null];
  choice.value = "";
}

/** Show 64 values, 0 to 1, as cells of the paper, and read them. */
export function paint(values, name = "") {
  clear();
  choice.value = name;
  sample = Float32Array.from(values);
  const size = paper.width / CELLS;
  values.forEach((value, at) => {
    pen.globalAlpha = value;
    pen.fillStyle = INK;
    pen.fillRect((at % CELLS) * size, Math.floor(at / CELLS) * size, size, size);
  });
  pen.globalAlpha = 1;
  return read();
}

place.querySelector(".live-clear").addEventListener("click", () => {
  clear();
  read();
});

// the self-check of the file

/** Show whether a session returns what the file states. */
async function verdict(name, line, ort, session) {
  const words = place.querySelectorAll(".live-check")[line];
  try {
    const { selfcheck } = await import(new URL("selfcheck.mjs", base));
    const { ok, outputs } = await selfcheck(ort, session, bytes);
    const [output, { difference, allowed }] = Object.entries(outputs).reduce((a, b) =>
      b[1].difference / b[1].allowed > a[1].difference / a[1].allowed ? b : a);
    const size = Number.isFinite(difference) ? `differs by ${difference.toExponential(0)}` : "is not finite";
    words.textContent = `${ok ? "✓" : "✗"} Self-check in ${name}: ${ok ? "passed" : "FAILED"}; ${output} ${size}, allowed ${allowed.toExponential(0)}.`;
    words.dataset.ok = ok;
  } catch (error) {
    words.textContent = `✗ Self-check in ${name}: FAILED; ${error.message}`;
    words.dataset.ok = false;
  }
}

place.querySelector(".live-gpu").addEventListener("click", async ({ target }) => {
  target.disabled = true;
  const words = place.querySelectorAll(".live-check")[1];
  try {
    if (!(await navigator.gpu.requestAdapter())) throw new Error("this browser has no adapter for it");
    const gpu = await import(new URL("ort.webgpu.min.mjs", base));
    gpu.env.wasm.numThreads = 1;
    gpu.env.wasm.wasmPaths = base.href;
    await verdict("WebGPU", 1, gpu, await gpu.InferenceSession.create(bytes, { executionProviders: ["webgpu"] }));
  } catch (error) {
    words.textContent = `WebGPU cannot be checked: ${error.message}.`;
  }
  target.hidden = true;
});

try {
  runtime = await import(new URL("ort.wasm.min.mjs", base));
  runtime.env.wasm.numThreads = 1;
  runtime.env.wasm.wasmPaths = base.href;
  bytes = new Uint8Array(await (await fetch(new URL("vit_digits.onnx", base))).arrayBuffer());
  const opened = await runtime.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  await verdict("WebAssembly", 0, runtime, opened);
  session = opened; // from here on, drawings are read
  const samples = await (await fetch(new URL("samples.json", base))).json();
  for (const digit of Object.keys(samples)) choice.add(new Option(digit, digit));
  choice.addEventListener("change", () => choice.value && paint(samples[choice.value], choice.value));
  answer.textContent = "Draw a digit.";
  place.dataset.ready = "yes";
  place.querySelector(".live-gpu").hidden = !navigator.gpu;
  await read();
} catch (error) {
  const missing = !(await fetch(new URL("vit_digits.onnx", base), { method: "HEAD" })).ok;
  answer.textContent = missing
    ? "These pages were built without the model: run “npm ci --prefix tests/node --ignore-scripts” and “mkdocs build” again."
    : `The model could not be loaded: ${error.message}`;
  place.dataset.ready = "no";
}
