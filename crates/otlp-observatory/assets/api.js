// Asks the observatory for the JSON of an address. Every answer carries an ETag; giving it back makes an unchanged
// answer cost nothing. Nothing is cached here: callers keep what they got.

const TIMEOUT_MS = 10_000;

/** The address was understood and refused: asking again the same way gives the same. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Nobody answered, or not in a way that can be read: asking again later may work. */
export class Unreachable extends Error {}

/**
 * @param {string} address path and query
 * @param {{etag?: string | null, signal?: AbortSignal}} [options]
 * @returns {Promise<{etag: string | null, body: any} | null>} null when it is what `etag` names
 */
export async function get(address, { etag = null, signal } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  /** @type {Record<string, string>} */
  const headers = { accept: 'application/json' };
  if (etag) headers['if-none-match'] = etag;
  try {
    const response = await fetch(address, {
      headers,
      // Page and JSON share addresses: the browser's cache must never show the one for the other.
      cache: 'no-store',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    if (response.status === 304) return null;
    const body = await response.json();
    if (response.ok) return { etag: response.headers.get('etag'), body };
    const message = typeof body?.error === 'string' ? body.error : `status ${response.status}`;
    if (response.status < 500 && response.status !== 429) throw new Refused(response.status, message);
    throw new Unreachable(message);
  } catch (error) {
    if (signal?.aborted || error instanceof Refused || error instanceof Unreachable) throw error;
    throw new Unreachable(error instanceof Error ? error.message : String(error));
  }
}
