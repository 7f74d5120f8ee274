// Instances of services, where they have to be told apart. Pure functions.

/**
 * Returns a function that names the instance of a span or log record; null if `items` has only one instance of its service.
 *
 * @param {any[]} items
 * @returns {(item: any) => string | null}
 */
export function instanceNames(items) {
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
    return id && (instances.get(item.service)?.size ?? 0) > 1 ? brief(id) : null;
  };
}

const instanceOf = (/** @type {any} */ { resource }) => resource?.['service.instance.id'] ?? null;

/** The first part of a UUID is enough; other ids are names. @param {unknown} id */
export const brief = (id) => String(id).replace(/^([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f-]+$/i, '$1');
