"use strict";
// A picture as the network sees it: its shape kept, scaled into a square of `side` pixels, the rest black. The same
// numbers as Pillow's Image.resize(..., BILINEAR), which the networks were trained with and the browser has not.

const PRECISION = 2 ** 22; // Pillow's fixed point: 32 bits, less 8 of the pixel and 2 to spare

// Where a (width, height) picture lies in the square: (w, h) pixels, top left at (x, y).
function place(side, width, height) {
  const scale = side / Math.max(width, height);
  const [w, h] = [width, height].map((length) => Math.max(1, roundToEven(length * scale)));
  return { x: Math.floor((side - w) / 2), y: Math.floor((side - h) / 2), w, h };
}

// Python's round: halves go to the even neighbour.
function roundToEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}

// For each of `to` pixels, the first of the `from` pixels that it is made of, and their weights in units of PRECISION:
// a triangle as wide as two pixels of the coarser of both.
function triangles(from, to) {
  const scale = from / to;
  const support = Math.max(1, scale);
  return Array.from({ length: to }, (_, pixel) => {
    const centre = (pixel + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let i = first; i < end; i++) weights.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) / support)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => Math.floor(0.5 + (weight / sum) * PRECISION)) };
  });
}

// Rows of RGB pixels (height x width x 3) resized along their width to `to` pixels, each rounded to a byte.
function resizeRows(pixels, height, width, to) {
  if (to === width) return pixels;
  const sources = triangles(width, to);
  const resized = new Uint8ClampedArray(height * to * 3);
  for (let row = 0; row < height; row++) {
    sources.forEach(({ first, weights }, column) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = PRECISION / 2;
        weights.forEach((weight, i) => (sum += weight * pixels[(row * width + first + i) * 3 + channel]));
        resized[(row * to + column) * 3 + channel] = Math.floor(sum / PRECISION);
      }
    });
  }
  return resized;
}

// (height x width x 3) with rows and columns exchanged.
function transposed(pixels, height, width) {
  const turned = new Uint8ClampedArray(pixels.length);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      for (let channel = 0; channel < 3; channel++)
        turned[(column * height + row) * 3 + channel] = pixels[(row * width + column) * 3 + channel];
  return turned;
}

// RGB pixels (height x width x 3) -> (side x side x 3).
function fitted(pixels, height, width, side) {
  const { x, y, w, h } = place(side, width, height);
  const wide = resizeRows(pixels, height, width, w); // first along the width, as Pillow does
  const scaled = transposed(resizeRows(transposed(wide, height, w), w, height, h), w, h);
  const square = new Uint8ClampedArray(side * side * 3);
  for (let row = 0; row < h; row++)
    square.set(scaled.subarray(row * w * 3, (row + 1) * w * 3), ((y + row) * side + x) * 3);
  return square;
}

// An image file's RGB pixels, upright, over black; colours as they are in the file.
async function decoded(file, mostPixels) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  if (width * height > mostPixels)
    throw new Error(`it has ${width} x ${height} pixels, at most ${mostPixels} are possible here; make it smaller`);
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8ClampedArray(width * height * 3);
  for (let i = 0; i < width * height; i++)
    for (let channel = 0; channel < 3; channel++) pixels[3 * i + channel] = data[4 * i + channel];
  return { pixels, width, height };
}
