// The query line, sorted lists, saved views, problems and comparisons, with the keyboard.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { assertAccessible } from './axe.mjs';
import { Sender } from './trace.mjs';

const trace = () => randomBytes(16).toString('hex');
const [FAST, SLOW, HEALTH] = [trace(), trace(), trace()];

/** Waits until a value is as expected. */
async function becomes(read, expected, what) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const value = await read();
    if (value === expected) return;
    assert.ok(Date.now() < deadline, `${what}: ${value} instead of ${expected}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Sends three requests of the service "query-shop": a fast one, one with 30 statements, and a health check. */
async function sendRequests(sender) {
  const request = (id, route, duration, more = {}) =>
    sender.span(id, 1, 0, `GET ${route}`, 0, duration, {
      kind: 2,
      attributes: { 'http.request.method': 'GET', 'http.route': route, 'http.response.status_code': more.error ? 500 : 200 },
      ...more,
    });
  const statement = (id, number) =>
    sender.span(id, number + 1, 1, 'SELECT', number, 1, {
      kind: 3,
      attributes: { 'db.system.name': 'sqlite', 'db.query.text': `SELECT name FROM author WHERE id = ${number}` },
    });
  await sender.send('query-shop', '1', [request(FAST, '/books', 20), statement(FAST, 1)]);
  const statements = Array.from({ length: 30 }, (_, index) => statement(SLOW, index + 1));
  await sender.send('query-shop', '1', [request(SLOW, '/books', 300, { error: 'no such author' }), ...statements]);
  await sender.send('query-shop', '1', [request(HEALTH, '/health', 1)]);
}

const query = (page) => page.locator('#query');
const rows = (page) => page.getByTestId('trace-row').count();
const parameter = (page, name) => new URL(page.url()).searchParams.get(name);

async function completeQuery(page, pages, shoot) {
  await page.goto(`${pages}/traces`);
  await page.getByTestId('trace-row').first().waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type('serv');
  await page.getByRole('listbox').getByRole('option').first().waitFor();
  await page.keyboard.press('ArrowDown');
  assert.equal(await query(page).getAttribute('aria-activedescendant'), 'query-option-0');
  await page.keyboard.press('Enter');
  assert.equal(await query(page).inputValue(), 'service=');
  await page.keyboard.type('query');
  await page.getByRole('listbox').getByRole('option', { name: 'query-shop' }).waitFor();
  await shoot(page, 'query');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Tab');
  assert.equal(await query(page).inputValue(), 'service=query-shop ');
  await page.keyboard.press('Enter');
  await becomes(() => rows(page), 3, 'traces of the service');
  await page.keyboard.type(' !name~health');
  await page.keyboard.press('Enter');
  await becomes(() => rows(page), 2, 'traces without the health check');
  // Each query is an entry of the history.
  await page.goBack();
  await becomes(() => rows(page), 3, 'traces after going back');
  await becomes(() => query(page).inputValue(), 'service=query-shop', 'the query after going back');
}

async function sortTraces(page) {
  const first = () => page.getByTestId('trace-row').first().getAttribute('data-trace-id');
  await page.getByTestId('sort-duration').press('Enter');
  await becomes(first, SLOW, 'the slowest trace');
  await page.getByTestId('sort-duration').press('Enter');
  await becomes(first, HEALTH, 'the fastest trace');
  assert.equal(parameter(page, 'sort'), 'duration');
  assert.equal(await page.locator('th[aria-sort="ascending"]').count(), 1);
}

async function typeIntoField(page) {
  const entries = await page.evaluate(() => history.length);
  await page.getByLabel('Text', { exact: true }).pressSequentially('author', { delay: 300 });
  await becomes(() => parameter(page, 'text'), 'author', 'the typed text');
  assert.equal(await page.evaluate(() => history.length), entries + 1, 'typing is one entry of the history');
  await page.goBack();
  await becomes(() => parameter(page, 'text'), null, 'the text after going back');
  await becomes(() => page.getByLabel('Text', { exact: true }).inputValue(), '', 'the field after going back');
}

async function openTraceById(page, pages) {
  await page.goto(`${pages}/logs`);
  for (const [field, key] of [[query(page), 'Enter'], [page.getByLabel('Text', { exact: true })]]) {
    await field.fill(FAST);
    if (key) await field.press(key);
    await page.locator(`[data-testid="trace"][data-trace-id="${FAST}"]`).waitFor();
    await page.goBack();
    await query(page).waitFor();
  }
  const paste = (text) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', text);
    document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  };
  await page.evaluate(paste, ` ${FAST.toUpperCase()}\n`);
  await page.locator(`[data-testid="trace"][data-trace-id="${FAST}"]`).waitFor();
}

async function saveView(page, pages) {
  await page.goto(`${pages}/logs?query=level%3E%3Dwarn`);
  await page.getByTestId('views').locator('summary').press('Enter');
  await page.getByLabel('Save this view as').fill('warnings');
  await page.keyboard.press('Enter');
  await page.goto(`${pages}/traces`);
  await page.getByTestId('views').locator('summary').press('Enter');
  await page.getByRole('link', { name: 'warnings' }).press('Enter');
  await becomes(() => parameter(page, 'query'), 'level>=warn', 'the saved view');
}

async function readProblems(page, pages, sender, shoot) {
  await page.goto(`${pages}/problems?service=query-shop`);
  const kind = (name) => page.locator(`[data-testid="problem"][data-kind="${name}"]`);
  await kind('n_plus_one').filter({ hasText: '30 × SELECT name FROM author WHERE id = ? in GET /books' }).waitFor();
  await kind('error').filter({ hasText: 'no such author' }).waitFor();
  await shoot(page, 'problems');
  await kind('n_plus_one').getByRole('link').first().press('Enter');
  await page.locator(`[data-testid="trace"][data-trace-id="${SLOW}"]`).waitFor();
  await page.goBack();
  await page.getByTestId('mark').press('Enter');
  await page.getByTestId('empty').waitFor();
  const later = trace();
  // A span that ends after its arrival counts from its arrival, which is after the mark.
  sender.now = Date.now() - 1300;
  await sender.send('query-shop', '1', [sender.span(later, 1, 0, 'GET /new', 0, 1400, { kind: 2 })]);
  await kind('slow_request').filter({ hasText: 'GET /new is slow new' }).waitFor();
}

async function compare(page, pages, shoot) {
  await page.goto(`${pages}/problems`);
  await page.getByRole('link', { name: 'Compare before and after' }).press('Enter');
  const row = page.getByTestId('compared-operations').getByRole('row').filter({ hasText: 'GET /new' });
  await row.waitFor();
  await shoot(page, 'before-and-after');

  await page.goto(`${pages}/traces/${FAST}`);
  await page.getByRole('link', { name: 'Compare', exact: true }).press('Enter');
  await page.locator('.candidates').getByRole('link').first().press('Enter');
  const statements = page.getByTestId('compared-spans').getByRole('row').filter({ hasText: 'SELECT' });
  await statements.filter({ hasText: '30 ×' }).waitFor();
  await shoot(page, 'compared-traces');
}

async function checkAccessibility(browser, pages, modules) {
  for (const [width, options] of [
    [1280, { colorScheme: 'light' }],
    [1280, { colorScheme: 'dark', forcedColors: 'active' }],
    [390, { colorScheme: 'dark' }],
  ]) {
    // axe-core is evaluated in the page, which the content security policy forbids.
    const page = await browser.newPage({ viewport: { width, height: 844 }, bypassCSP: true, ...options });
    const check = async (what) => {
      await assertAccessible(page, modules, `${what}, ${width} pixels, ${JSON.stringify(options)}`);
      const whole = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(whole <= width, `${what} is ${whole} pixels wide`);
    };
    await page.goto(`${pages}/traces?sort=-duration`);
    await page.getByTestId('trace-row').first().waitFor();
    await query(page).fill('http');
    await page.getByRole('listbox').getByRole('option').first().waitFor();
    await page.keyboard.press('ArrowDown');
    await check('completions');
    await page.goto(`${pages}/traces?query=dur%3E5`);
    await page.getByRole('alert').filter({ hasText: '`dur` needs a duration' }).waitFor();
    await page.locator('.query-help summary').press('Enter');
    await page.getByTestId('views').locator('summary').press('Enter');
    await check('a wrong query');
    await page.goto(`${pages}/problems`);
    await page.getByTestId('problem').first().waitFor();
    await page.getByTestId('mark').click();
    await check('problems');
    await page.goto(`${pages}/compare?at=1m&window=1h`);
    await page.getByTestId('compared-operations').waitFor();
    await check('operations');
    await page.goto(`${pages}/compare?a=${FAST}&b=${SLOW}`);
    await page.getByTestId('compared-spans').waitFor();
    await check('two traces');
    await page.close();
  }
}

/**
 * @param {object} test
 * @param {import('playwright-core').Browser} test.browser
 * @param {string} test.pages address of the pages
 * @param {string} test.otlp address of the receiver
 * @param {string} test.modules folder node_modules
 */
export async function findAndCompare({ browser, pages, otlp, modules, post, shoot, watch, timeout }) {
  const sender = new Sender(otlp, post);
  await sendRequests(sender);
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(timeout);
  watch(page);
  await completeQuery(page, pages, shoot);
  await sortTraces(page);
  await typeIntoField(page);
  await openTraceById(page, pages);
  await saveView(page, pages);
  await readProblems(page, pages, sender, shoot);
  await compare(page, pages, shoot);
  await page.close();
  await checkAccessibility(browser, pages, modules);
}
