// Accessibility of a page, by axe-core: WCAG 2.2 AA, and axe's rules on labels and good practice.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const TAGS = ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice', 'experimental'];

/** Asserts that axe-core finds nothing in the page once its lists are loaded. `modules` is the folder node_modules. */
export async function assertAccessible(page, modules, what) {
  await page.locator('[aria-busy="true"]').first().waitFor({ state: 'detached' });
  await page.evaluate(readFileSync(join(modules, 'axe-core', 'axe.min.js'), 'utf8'));
  const { violations } = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags }), TAGS);
  const found = violations.map(
    ({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map(({ html }) => html.slice(0, 200)).join('\n  ')}`,
  );
  assert.deepEqual(found, [], `axe-core, ${what}`);
}
