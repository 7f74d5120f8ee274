// The colour of a service depends only on its name, so it is the same on every page. Reds are excluded, because red
// means error.
import { hashOf } from './hash.js';

const FIRST = 70;
const STEP = 24;
const STEPS = 11;

/** Returns the OKLCH hue of a service, in degrees. @param {string} name */
export const hueOf = (name) => FIRST + STEP * (hashOf(name) % STEPS);
