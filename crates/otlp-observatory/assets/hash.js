// FNV-1a, 32 bits: names that differ in one letter land far apart, and the same name always lands on the same number.

/** @param {string} text */
export function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash ^= text.charCodeAt(index);
    hash = Math.imul(hash, 0x01000193);
  }
  // The last letters would otherwise hardly reach the lowest bits.
  hash ^= hash >>> 15;
  return hash >>> 0;
}
