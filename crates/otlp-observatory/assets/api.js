// Requests JSON from the observatory, without a cache. A caller that passes the ETag of its last response gets null if
// nothing has changed.

const TIMEOUT_MS = 10_000;

/** Error of a rejected request; repeating it has the same result. */
export class Rejected extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Error of a missing or unreadable response; a later request may succeed. */
export class Unreachable extends Error {}

/**
 * @param {string} address path and query
 * @param {{etag?: string | null, signal?: AbortSignal}} [options]
 * @returns {Promise<{etag: string | null, body: any} | null>} null if `etag` is still current
 */
export async function get(address, { etag = null, signal } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  /** @type {Record<string, string>} */
  const headers = { accept: 'application/json' };
  if (etag) headers['if-none-match'] = etag;
  try {
    const response = await fetch(address, {
      headers,
      // Pages and JSON have the same addresses, so a cached page could be returned as JSON.
      cache: 'no-store',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    if (response.status === 304) return null;
    const body = await response.json();
    if (response.ok) return { etag: response.headers.get('etag'), body };
    const message = typeof body?.error === 'string' ? body.error : `status ${response.status}`;
    if (response.status < 500 && response.status !== 429) throw new Rejected(response.status, message);
    throw new Unreachable(message);
  } catch (error) {
    if (signal?.aborted || error instanceof Rejected || error instanceof Unreachable) throw error;
    throw new Unreachable(error instanceof Error ? error.message : String(error));
  }
}

/** Removes all telemetry. */
export async function clear() {
  const response = await fetch('/clear', { method: 'POST', signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Unreachable(`status ${response.status}`);
}
