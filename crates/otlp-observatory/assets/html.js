// Binds htm to Preact: `html` creates elements from a template and escapes its values. Other modules import Preact from
// here, and not from the vendored files.
import htm from './vendor/htm.module.js';
import { Component, h, render } from './vendor/preact.mjs';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-hooks.mjs';

export const html = htm.bind(h);
export { Component, render, useEffect, useLayoutEffect, useMemo, useRef, useState };
