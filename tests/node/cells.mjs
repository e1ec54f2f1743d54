// Prepares drawings as the live page does: stdin is a list of drawings, stdout the list of their cells (docs/assets/live/strokes.mjs).
import { readFileSync } from "node:fs";
import { cells } from "../../docs/assets/live/strokes.mjs";

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map((strokes) => [...cells(strokes)])));
