// Names of services that tell their instances apart. Pure functions.

/**
 * Returns a function that names the service of a span or log record: with its instance if `items` has several instances of
 * the service.
 *
 * @param {any[]} items
 * @returns {(item: any) => string}
 */
export function serviceNames(items) {
  /** @type {Map<string, Set<string>>} */
  const instances = new Map();
  for (const item of items) {
    const id = instanceOf(item);
    if (!id) continue;
    if (!instances.has(item.service)) instances.set(item.service, new Set());
    instances.get(item.service)?.add(id);
  }
  return (item) => {
    const id = instanceOf(item);
    return id && (instances.get(item.service)?.size ?? 0) > 1 ? `${item.service} · ${brief(id)}` : item.service;
  };
}

const instanceOf = (/** @type {any} */ { resource }) => resource?.['service.instance.id'] ?? null;

/** The first part of a UUID is enough; other ids are names. @param {unknown} id */
const brief = (id) => String(id).replace(/^([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f-]+$/i, '$1');
