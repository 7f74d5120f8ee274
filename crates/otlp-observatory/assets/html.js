// Binds htm to Preact: `html` makes elements of a template and escapes every value in it. All other modules take
// Preact from here, so that the vendored files are named in one place.
import htm from './vendor/htm.module.js';
import { Component, h, render } from './vendor/preact.mjs';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-hooks.mjs';

export const html = htm.bind(h);
export { Component, render, useEffect, useLayoutEffect, useMemo, useRef, useState };
