// FNV-1a hash, 32 bits.

/** @param {string} text */
export function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash ^= text.charCodeAt(index);
    hash = Math.imul(hash, 0x01000193);
  }
  // Mixes the last characters into the lowest bits.
  hash ^= hash >>> 15;
  return hash >>> 0;
}
