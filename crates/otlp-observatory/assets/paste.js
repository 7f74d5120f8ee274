// Opens the trace whose id is pasted, unless it is pasted into a field with other text.
import { traceOf } from './query.js';
import { navigate } from './router.js';

/** Starts handling pasted text. */
export function start() {
  document.addEventListener('paste', (event) => {
    const { target } = event;
    const isField = target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement;
    if (isField && (target.value !== '' || target.hasAttribute('data-keep-paste'))) return;
    const address = traceOf(event.clipboardData?.getData('text/plain') ?? '');
    if (!address) return;
    event.preventDefault();
    navigate(address);
  });
}
