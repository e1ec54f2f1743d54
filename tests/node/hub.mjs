// Loads repositories of a Hub by transformers.js: stdin is {remote, cache, jobs: [{repo, auto, file, dtype, input, dims, values,
// output}]}; raw little-endian float32 arrays, the named outputs one after another.
import { readFileSync, writeFileSync } from "node:fs";
import * as transformers from "@huggingface/transformers";

const { remote, cache, jobs } = JSON.parse(readFileSync(0, "utf8"));
Object.assign(transformers.env, { remoteHost: remote, cacheDir: cache, allowLocalModels: false });
for (const { repo, auto, file, dtype, input, dims, values, output } of jobs) {
  const model = await transformers[auto].from_pretrained(repo, { dtype, device: "cpu", model_file_name: file });
  const bytes = readFileSync(input);
  const data = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const found = await model({ pixel_values: new transformers.Tensor("float32", data, dims) });
  const parts = values.map((name) => Buffer.from(new Uint8Array(found[name].data.slice().buffer)));
  writeFileSync(output, Buffer.concat(parts));
}
