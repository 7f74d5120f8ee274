// A service has the same colour on every page and in every session: its hue is made of its name alone. Reds are left
// out, because red says "error" everywhere.

const FIRST = 70;
const STEP = 24;
const STEPS = 11;

/** Degrees of OKLCH's hue. @param {string} name */
export function hueOf(name) {
  // FNV-1a: short names that differ in their last letter still land far apart.
  let hash = 0x811c9dc5;
  for (let index = 0; index < name.length; index += 1) {
    hash ^= name.charCodeAt(index);
    hash = Math.imul(hash, 0x01000193);
  }
  hash ^= hash >>> 15;
  return FIRST + STEP * ((hash >>> 0) % STEPS);
}
