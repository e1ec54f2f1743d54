// Runs ONNX files by onnxruntime-web: stdin is a list of {file, input, type, dims, output}; raw little-endian arrays.
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
for (const { file, input, type, dims, output } of JSON.parse(readFileSync(0, "utf8"))) {
  const session = await ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"] });
  const bytes = readFileSync(input);
  const data = type === "uint8" ? new Uint8Array(bytes) : new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const found = await session.run({ [session.inputNames[0]]: new ort.Tensor(type, data, dims) });
  writeFileSync(output, new Uint8Array(found[session.outputNames[0]].data.buffer));
}
