// Check on this machine that an ONNX file made by vitzoo computes what it did when it was exported.
// node selfcheck.mjs model.onnx [PROVIDER]   needs onnxruntime-node or onnxruntime-web; the exit code is 3 if an output differs
// In a browser: import { selfcheck } from "./selfcheck.mjs"; await selfcheck(ort, session, bytes)

const KEY = "vit_zoo.selfcheck";

function hashed(x) {
  for (const [shift, factor] of [[16, 0x7feb352d], [15, 0x846ca68b]]) x = Math.imul(x ^ (x >>> shift), factor);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The self-check in a file's bytes, a Uint8Array: the last entry of the model's metadata, a key and a value. */
export function documentIn(bytes) {
  const tail = new TextDecoder("latin1").decode(bytes.subarray(-8192)), at = tail.lastIndexOf(KEY);
  if (at < 0) throw new Error("the file has no self-check");
  let place = at + KEY.length + 1, length = 0;
  for (let shift = 0, byte = 128; byte & 128; shift += 7) length |= ((byte = tail.charCodeAt(place++)) & 127) << shift;
  return JSON.parse(tail.slice(place, place + length));
}

/** A batch of noise, and of ramps that differ between channels and axes; `first` is the image of its first row. */
function batch({ type, layout, shape }, first) {
  const [n, c, h, w] = layout === "NCHW" ? shape : [shape[0], shape[3], shape[1], shape[2]];
  const data = type === "float32" ? new Float32Array(n * c * h * w) : new Uint8Array(n * c * h * w);
  for (let row = 0, at = 0; row < n; row++)
    for (let i = 0; i < c * h * w; i++, at++) {
      const k = layout === "NCHW" ? Math.floor(i / (h * w)) : i % c, pixel = layout === "NCHW" ? i % (h * w) : Math.floor(i / c);
      const y = Math.floor(pixel / w), x = pixel % w;
      const ramps = Math.floor(((k + 1) * x * 256) / w) + Math.floor(((k + 2) * y * 256) / h);
      const byte = (row + first) % 2 ? ramps % 256 : hashed((k * h + y) * w + x) >>> 24;
      data[at] = type === "float32" ? (byte - 128) / 64 : byte;
    }
  return data;
}

/** The largest difference of one image's output, relative to its largest value. */
function difference(x, wanted, image) {
  const expected = wanted.values[image], scale = wanted.largest[image] || 1;
  let far = 0, squares = 0, projection = 0;
  expected.forEach((value, i) => {
    far = Math.max(far, Math.abs(x[expected.length < x.length ? hashed(i + 2 ** 31) % x.length : i] - value));
  });
  x.forEach((value, i) => {
    squares += value * value;
    projection += value * ((hashed(i + 2 ** 30) >>> 24) / 128 - 1);
  });
  const ofAll = [Math.sqrt(squares) - wanted.norm[image], projection - wanted.projection[image]];
  return Math.max(far, ...ofAll.map((d) => Math.abs(d) / Math.sqrt(x.length))) / scale;
}

/** Run the self-check of a file that is open in a session; `bytes` are the file's, or its last 8 KiB. */
export async function selfcheck(ort, session, bytes) {
  const check = documentIn(bytes), { name, type, shape } = check.input, outputs = {};
  for (let first = 0; first < (shape[0] === 1 ? 2 : 1); first++) {
    const results = await session.run({ [name]: new ort.Tensor(type, batch(check.input, first), shape) });
    for (const wanted of check.outputs) {
      const values = results[wanted.name], fits = `${values?.dims}` === `${wanted.shape}`;
      const size = fits ? values.data.length / shape[0] : 0, known = outputs[wanted.name]?.difference ?? 0;
      let far = fits ? known : Infinity;
      for (let row = 0; fits && row < shape[0]; row++)
        far = Math.max(far, difference(values.data.subarray(row * size, (row + 1) * size), wanted, (row + first) % 2));
      outputs[wanted.name] = { difference: far, allowed: wanted.tolerance, ok: far <= wanted.tolerance };
    }
  }
  return { ok: Object.values(outputs).every((output) => output.ok), outputs };
}

if (globalThis.process?.argv?.[1]?.endsWith("selfcheck.mjs")) {
  const [file, provider] = process.argv.slice(2), bytes = (await import("node:fs")).readFileSync(file);
  const web = ["wasm", "webgpu", "webnn"].includes(provider), native = web ? null : await import("onnxruntime-node").catch(() => null);
  const ort = native ?? (await import("onnxruntime-web"));
  const executionProviders = [provider ?? (native ? "cpu" : "wasm")];
  const result = await selfcheck(ort, await ort.InferenceSession.create(native ? file : bytes, { executionProviders }), bytes);
  for (const [name, { difference: far, allowed, ok }] of Object.entries(result.outputs))
    console.log(`${name}: ${far.toExponential(1)}, allowed ${allowed}${ok ? "" : "  FAILED"}`);
  process.exitCode = result.ok ? 0 : 3;
}
