"use strict";
// Attention maps on the picture's pixels, and in colour.

// A layer's cells (h x w) on pixels (H x W): rows @ cells @ columns.T, divided by how far each pixel is covered; NaN
// where no cell is. rows is H x h, columns W x w, shares of pixels in cells.
function placed(cells, { rows, columns }) {
  const w = columns[0].length;
  const values = new Float64Array(rows.length * columns.length);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const [high, wide] = [rows.map(sum), columns.map(sum)];
  rows.forEach((shares, y) => {
    const line = new Float64Array(w); // this row of pixels, but still in the layer's columns
    shares.forEach((share, i) => {
      if (share) for (let j = 0; j < w; j++) line[j] += share * cells[i * w + j];
    });
    columns.forEach((parts, x) => {
      let value = 0;
      for (let j = 0; j < w; j++) if (parts[j]) value += parts[j] * line[j];
      values[y * columns.length + x] = value / (high[y] * wide[x]); // 0 / 0 is the NaN
    });
  });
  return values;
}

// A map (side x side) whose cells are cell[0] pixels high and cell[1] wide, bilinear between their centres; NaN stays.
// To look at; the same as `smoothed` in maps/shown_maps.py.
function smoothed(values, side, cell) {
  const known = values.map((value) => (Number.isNaN(value) ? 0 : 1));
  const numbers = values.map((value) => (Number.isNaN(value) ? 0 : value));
  const [total, part] = [numbers, known].map((each) => summed(summed(each, side, side, cell[0]), side, 1, cell[1]));
  return values.map((value, i) => (Number.isNaN(value) ? value : total[i] / part[i]));
}

// The sum over a window as wide as a cell around each pixel, along the axis whose neighbours are `step` apart.
function summed(values, side, step, width) {
  const reach = Math.ceil((width - 1) / 2);
  return values.map((_, i) => {
    const place = Math.floor(i / step) % side;
    let sum = 0;
    for (let away = Math.max(-reach, -place); away <= Math.min(reach, side - 1 - place); away++)
      sum += Math.min(1, (width + 1) / 2 - Math.abs(away)) * values[i + away * step];
    return sum;
  });
}

// The largest value that is a number.
function highest(values) {
  return values.reduce((most, value) => (value > most ? value : most), 0);
}

const ROUNDING = 1e-6; // a cell's pixels differ by no more of the largest value

// The centre of a map's highest cell, in pixels from its left and top; null for a map of zeros. The cell is the pixels of
// the largest value that edges connect to the first of them, as in metrics/pointing.py.
function highestPoint(values, side) {
  const limit = highest(values) * (1 - ROUNDING);
  if (!limit) return null;
  const cell = new Set([values.findIndex((value) => value >= limit)]);
  for (const pixel of cell) {
    const [x, y] = [pixel % side, Math.floor(pixel / side)];
    const beside = [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]];
    for (const [i, j] of beside) if (i >= 0 && i < side && values[j * side + i] >= limit) cell.add(j * side + i);
  }
  const mean = (place) => [...cell].reduce((sum, pixel) => sum + place(pixel), 0) / cell.size;
  return { x: mean((pixel) => pixel % side) + 0.5, y: mean((pixel) => Math.floor(pixel / side)) + 0.5 };
}

// Draw a map (side x side) from 0 to `high` in the colours (256 of RGB); hatched where it is NaN.
function paint(canvas, values, side, high, colours) {
  const image = new ImageData(side, side);
  values.forEach((value, i) => {
    const stripe = ((i % side) + Math.floor(i / side)) % 6 < 2 ? 110 : 40;
    const step = Math.min(255, Math.floor((value / (high || 1)) * 256));
    image.data.set([...(Number.isNaN(value) ? [stripe, stripe, stripe] : colours[step]), 255], 4 * i);
  });
  Object.assign(canvas, { width: side, height: side });
  canvas.getContext("2d").putImageData(image, 0, 0);
}
