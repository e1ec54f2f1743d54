// From the strokes of a drawn digit to the 8 x 8 cells of the data set that vit_digits was trained on. No browser is needed.
// zoo/vit_digits/drawn.py computes the same for training, and a test compares both.

export const CELLS = 8, LEVELS = 16;
const BITMAP = 32, BLOCK = BITMAP / CELLS; // the data set counts the ink in 4 x 4 blocks of a bitmap
const BOX = { width: 17, height: 27 }; // of the pen's path; the ink around it fills about 22 x 32, as in most of the data set
const STRETCH = 1.25; // limit of width against height and the reverse, so that a 1 does not become a bar
const INK = 311; // pixels, the mean of the data set; it hardly depends on the digit

/** The squared distance between a point and the line from `a` to `b`. */
function distance(x, y, [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay], length = dx * dx + dy * dy;
  const share = length ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length)) : 0;
  return (x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2;
}

/** Moves and scales the strokes so that they fill the box in the middle of the bitmap. */
function fitted(strokes) {
  const points = strokes.flat(), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const [fullWidth, fullHeight] = [BOX.width / Math.max(right - left, 1), BOX.height / Math.max(bottom - top, 1)];
  const across = Math.min(fullWidth, STRETCH * fullHeight), down = Math.min(fullHeight, STRETCH * across);
  const moved = ([x, y]) => [BITMAP / 2 + (x - (left + right) / 2) * across, BITMAP / 2 + (y - (top + bottom) / 2) * down];
  return strokes.map((stroke) => stroke.map(moved));
}

/**
 * The ink in each cell, row by row, 0 to 1 in steps of 1/16; null without strokes. A stroke is a list of points [x, y], in any unit.
 * Place, size and line width of the drawing do not matter: the pen is made as wide as it takes for INK pixels of ink.
 */
export function cells(strokes) {
  const drawn = strokes.filter((stroke) => stroke.length);
  if (!drawn.length) return null;
  const lines = fitted(drawn).flatMap((points) => points.map((point, at) => [points[Math.max(0, at - 1)], point]));
  const distances = Array.from({ length: BITMAP ** 2 }, (_, at) => {
    const x = (at % BITMAP) + 0.5, y = Math.floor(at / BITMAP) + 0.5;
    let nearest = Infinity;
    for (const [a, b] of lines) nearest = Math.min(nearest, distance(x, y, a, b));
    return nearest;
  });
  const reach = distances.toSorted((a, b) => a - b)[INK - 1];
  const values = new Float32Array(CELLS ** 2);
  distances.forEach((each, at) => {
    const row = Math.floor(at / BITMAP / BLOCK), column = Math.floor((at % BITMAP) / BLOCK);
    if (each <= reach) values[row * CELLS + column] += 1 / LEVELS;
  });
  return values;
}
