// A service has the same colour on every page and in every session: its hue is made of its name alone. Reds are left
// out, because red says "error" everywhere.
import { hashOf } from './hash.js';

const FIRST = 70;
const STEP = 24;
const STEPS = 11;

/** Degrees of OKLCH's hue. @param {string} name */
export const hueOf = (name) => FIRST + STEP * (hashOf(name) % STEPS);
