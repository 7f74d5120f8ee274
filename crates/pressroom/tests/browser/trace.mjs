// Work inside a trace, with the keyboard: find, next error, folding, groups, zoom, statistics, source code, links, clocks.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { assertAccessible } from './axe.mjs';

/** Maximum time of the processor in which the browser loads the page and draws 10,000 spans. */
const DRAWN_WITHIN_MS = 700;

const SPANS = 10_000;
const FAILED = [6902, 8492];
const [LARGE, SMALL, EQUAL_IDS] = [1, 2, 3].map(() => randomBytes(16).toString('hex'));

const hex = (number) => number.toString(16).padStart(16, '0');
const attributesOf = (values) =>
  Object.entries(values).map(([key, value]) => ({
    key,
    value: typeof value === 'number' ? { intValue: String(value) } : { stringValue: value },
  }));

const PYTHON = [
  'Traceback (most recent call last):',
  ...Array.from({ length: 40 }, (_, index) => `  File "/srv/app/m${index}.py", line ${index + 1}, in f${index}`),
  'ValueError: no such author',
].join('\n');

/** Sends traces. Times are in milliseconds. */
export class Sender {
  constructor(otlp, post) {
    this.send = (service, instance, spans) => {
      const resource = { attributes: attributesOf({ 'service.name': service, 'service.instance.id': instance }) };
      return post(`${otlp}/v1/traces`, { resourceSpans: [{ resource, scopeSpans: [{ spans }] }] });
    };
    this.now = Date.now() - 10_000;
  }

  /** Returns nanoseconds as text. */
  at(milliseconds) {
    return String(BigInt(Math.round((this.now + milliseconds) * 1000)) * 1000n);
  }

  span(traceId, id, parent, name, start, duration, { kind = 1, attributes = {}, error, ...rest } = {}) {
    return {
      traceId,
      spanId: hex(id),
      parentSpanId: parent ? hex(parent) : '',
      name,
      kind,
      startTimeUnixNano: this.at(start),
      endTimeUnixNano: this.at(start + duration),
      attributes: attributesOf(attributes),
      status: error ? { code: 2, message: error } : {},
      ...rest,
    };
  }
}

/** Sends a trace of 10,000 spans, three levels deep, of which two failed. */
async function sendLarge(sender) {
  const spans = [sender.span(LARGE, 1, 0, 'GET /report', 0, 2000, { kind: 2 })];
  for (let id = 2; id <= SPANS; id += 1) {
    const parent = id % 10 === 2 ? 1 : id - ((id - 2) % 10);
    const error = FAILED.includes(id) ? 'no rows' : undefined;
    const attributes = { n: id, 'db.query.text': `SELECT ${id}` };
    spans.push(sender.span(LARGE, id, parent, `step ${id % 97}`, (id / SPANS) * 1990, 4, { attributes, error }));
  }
  for (let from = 0; from < spans.length; from += 512) await sender.send('report', 'r1', spans.slice(from, from + 512));
}

/** Sends a trace with one of everything that a row or the details mark. */
async function sendSmall(sender) {
  const span = (...values) => sender.span(SMALL, ...values);
  const exception = {
    'exception.type': 'ValueError',
    'exception.message': 'no such author',
    'exception.stacktrace': PYTHON,
  };
  const spans = [
    span(1, 0, 'GET /authors', 0, 120, {
      kind: 2,
      attributes: {
        'code.file.path': '/srv/app/authors.py',
        'code.line.number': 42,
        'url.full': 'https://example.com/authors?page=1',
        payload: '{"ids":[9007199254740993]}',
      },
    }),
    span(2, 1, 'load', 5, 100, {
      error: 'see https://example.com/errors.',
      attributes: { 'code.filepath': 'src/load.rs', 'code.lineno': 7 },
      events: [{ name: 'exception', timeUnixNano: sender.at(60), attributes: attributesOf(exception) }],
    }),
    ...Array.from({ length: 100 }, (_, index) =>
      span(10 + index, 2, 'SELECT author', 8 + index * 0.9, 0.7, {
        kind: 3,
        attributes: { 'db.system.name': 'sqlite' },
      }),
    ),
    span(200, 2, 'POST /mail', 100, 4, { kind: 3 }),
    span(202, 0xdead, 'lost', 50, 10),
  ];
  await sender.send('authors', 'one', spans);
  await sender.send('authors', 'two', [span(203, 1, 'audit', 110, 5)]);
  // The clock of this service is three seconds late.
  const links = [
    { traceId: SMALL, spanId: hex(1), attributes: [] },
    { traceId: LARGE, spanId: hex(1), attributes: [] },
  ];
  await sender.send('mail', 'm1', [span(201, 200, 'POST /mail', -3000, 2, { kind: 2, links })]);
}

/** Waits until a row is selected and in the visible part of the waterfall. */
async function assertLanded(page, id) {
  await page.waitForFunction((spanId) => {
    const row = document.querySelector(`.span-row.is-selected[data-span-id="${spanId}"]`)?.getBoundingClientRect();
    const rows = document.querySelector('.waterfall-rows').getBoundingClientRect();
    return row && row.top >= rows.top - 1 && row.bottom <= rows.bottom + 1;
  }, hex(id));
}

const press = async (page, ...keys) => {
  for (const key of keys) await page.keyboard.press(key);
};

async function openTrace(page, pages, id) {
  await page.goto(`${pages}/traces/${id}`);
  await page.getByTestId('span-row').first().waitFor();
}

async function workInLargeTrace(page, pages) {
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable', { timeDomain: 'threadTicks' });
  await openTrace(page, pages, LARGE);
  const { metrics } = await session.send('Performance.getMetrics');
  const took = Math.round(1000 * metrics.find(({ name }) => name === 'TaskDuration').value);
  console.log(`${SPANS} spans are drawn in ${took} ms`);
  assert.ok(took < DRAWN_WITHIN_MS, `drawing took ${took} ms`);
  assert.ok((await page.locator('.span-row').count()) < 100, 'only visible rows are in the document');

  await press(page, 'e');
  await assertLanded(page, FAILED[0]);
  await press(page, 'e');
  await assertLanded(page, FAILED[1]);
  await press(page, 'e', 'E');
  await assertLanded(page, FAILED[1]);

  const found = page.getByTestId('found');
  await press(page, '/');
  await page.keyboard.type('n=5000');
  assert.equal(await found.textContent(), '1 match');
  await press(page, 'Enter');
  await assertLanded(page, 5000);
  assert.equal(await found.textContent(), '1 of 1');
  await press(page, 'Escape');
  await page.keyboard.type('step 41');
  assert.match(await found.textContent(), /^\d+ matches$/);
  await press(page, 'Enter', 'Escape', 'Escape', '{');
  assert.equal(await page.locator('.span-row').count(), 1);
  await press(page, ']');
  assert.match(await page.getByTestId('levels').textContent(), /2 of 3 levels/);
  await press(page, '}');

  const scale = page.getByTestId('scale');
  const whole = await scale.innerText();
  await press(page, '+', '+');
  assert.notEqual(await scale.innerText(), whole);
  await press(page, '0');
  assert.equal(await scale.innerText(), whole);
  for (const target of [page.getByTestId('minimap'), scale]) {
    const box = await target.boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + 10);
    await page.mouse.down();
    await page.mouse.move(box.x + (3 * box.width) / 4, box.y + 10, { steps: 4 });
    await page.mouse.up();
    assert.match(await scale.innerText(), /^1(\.\d+)? s/, 'the third quarter is shown');
    await page.getByRole('button', { name: 'Whole trace' }).press('Enter');
    assert.equal(await scale.innerText(), whole);
  }
}

async function workInSmallTrace(page, pages, shoot) {
  await openTrace(page, pages, SMALL);
  const rows = page.locator('.span-row');
  const group = page.getByTestId('group-row');
  assert.match(await group.innerText(), /100 ×\s*SELECT author[^]*client[^]*N\+1/);
  for (const [name, tags] of [
    ['GET /authors', /server[^]*← 1 link/],
    ['lost', /no parent/],
    ['audit', /authors · two/],
  ]) {
    assert.match(await rows.filter({ hasText: name }).first().innerText(), tags, name);
  }
  assert.equal(await rows.filter({ hasText: 'load' }).locator('.mark-exception').count(), 1);
  assert.ok((await page.locator('.span-critical').count()) > 0);
  await press(page, 'c');
  assert.equal(await page.locator('.span-critical').count(), 0);
  await press(page, 'c');
  await shoot(page, 'trace-tools');

  // The third row is the group.
  await press(page, 'j', 'j', 'j');
  await page.getByTestId('group-details').waitFor();
  const folded = await page.locator('.waterfall-space').evaluate((element) => element.clientHeight);
  await press(page, 'ArrowRight');
  const unfolded = await page.locator('.waterfall-space').evaluate((element) => element.clientHeight);
  assert.equal((unfolded - folded) / 28, 100);
  await press(page, 'ArrowLeft', 'g');
  assert.equal(await group.count(), 0);
  await press(page, 'g');

  await press(page, '/');
  await page.keyboard.type('name=lost');
  await press(page, 'Enter', 'Tab', 'Tab', 'Tab', 'Enter');
  assert.equal(await rows.count(), 1);
  await shoot(page, 'trace-filter');
  await page.locator('.waterfall-rows').focus();
  await press(page, 'f', 's');
  const statistic = page.getByTestId('statistics').getByRole('row').filter({ hasText: 'SELECT author' });
  assert.match(await statistic.innerText(), /100\s+0\s+70 ms/);
  await shoot(page, 'trace-statistics');
  await statistic.getByRole('button', { name: 'SELECT author' }).press('Enter');
  assert.equal(await page.getByTestId('found').textContent(), '100 matches');
  await page.getByTestId('find').fill('db.system=SQLITE or db.system=sqlite');
  await page.getByTestId('found').getByText('100 matches').waitFor();
}

/** A span whose clock is late is outside of the scale, which is the root's, until clocks are aligned. */
async function alignClocks(page, pages, shoot) {
  await openTrace(page, pages, SMALL);
  const late = page.locator(`[data-span-id="${hex(201)}"]`);
  assert.match(await late.innerText(), /clock[^]*◂ 2 ms/);
  assert.equal(await late.locator('.span-bar').count(), 0);
  assert.match(await page.locator('.facts').innerText(), /120 ms[^]*1 span with another clock/);
  await press(page, 'a');
  await late.locator('.span-bar').waitFor();
  assert.match(page.url(), /\?align=clocks$/);
  assert.match(await late.innerText(), /clock/, 'the mark stays');
  await shoot(page, 'trace-aligned');
  await page.goBack();
  await late.locator('.span-bar').waitFor({ state: 'detached' });
}

async function readDetails(page, pages, shoot) {
  await page.goto(`${pages}/traces/${SMALL}#${hex(2)}`);
  const details = page.getByTestId('span-details');
  const raised = details.locator('.stack-raised');
  assert.match(await raised.innerText(), /m39\.py/);
  const [inner, outer] = [await raised.boundingBox(), await details.getByTestId('stack').boundingBox()];
  assert.ok(inner.y >= outer.y && inner.y + inner.height <= outer.y + outer.height, 'the frame is visible');
  assert.equal(await raised.getByRole('link').getAttribute('href'), 'vscode://file/srv/app/m39.py:40');
  const message = details.getByRole('link', { name: 'https://example.com/errors', exact: true });
  assert.equal(await message.getAttribute('rel'), 'noopener noreferrer');

  const code = details.getByTestId('code');
  assert.equal(await code.getByRole('link').count(), 0, 'a relative path has no link without the folder');
  await code.getByText('Editor').press('Enter');
  await code.getByLabel('Folder of relative paths').fill('/home/me/shop');
  await code.getByLabel('Address').fill('zed://file/{path}:{line}');
  await code.getByLabel('Address').press('Enter');
  await code.getByLabel('Folder of relative paths').focus();
  await page.reload();
  await code.getByRole('link').waitFor();
  assert.equal(await code.getByRole('link').getAttribute('href'), 'zed://file/home/me/shop/src/load.rs:7');
  await shoot(page, 'trace-stack');

  await page.goto(`${pages}/traces/${SMALL}#${hex(1)}`);
  await details.locator('.json').filter({ hasText: '[\n    9007199254740993\n  ]' }).waitFor();
  await details.getByRole('link', { name: 'https://example.com/authors?page=1', exact: true }).waitFor();
  await details.getByText('Linked from').waitFor();
  await details.getByRole('link', { name: 'POST /mail' }).press('Enter');
  await page.locator(`[data-testid="span-details"][data-span-id="${hex(201)}"]`).waitFor();
}

/** The page is not watched, because the console has a message for each response 404. */
async function openUnknownPages(browser, pages, modules) {
  const page = await browser.newPage();
  for (const path of ['nope', 'traces/', 'logs/']) {
    const response = await page.goto(`${pages}/${path}`);
    assert.equal(response.status(), 404, path);
    await page.getByRole('main').getByRole('heading', { level: 1, name: 'Page not found.' }).waitFor();
    assert.equal(await page.title(), 'Not found · Observatory');
    await assertAccessible(page, modules, path);
    await page.getByRole('main').getByRole('link', { name: 'Overview' }).press('Enter');
    await page.waitForURL(`${pages}/`);
  }
  await page.goto(`${pages}/traces/${'1'.repeat(32)}`);
  await page.getByRole('heading', { level: 1, name: 'Trace not found.' }).waitFor();
  await page.close();
}

/** Every part of the trace page, in both themes and widths and in forced colours. */
async function checkAccessibility(browser, pages, modules, watch) {
  for (const colorScheme of ['light', 'dark']) {
    for (const viewport of [
      { width: 1280, height: 800 },
      { width: 390, height: 844 },
    ]) {
      const page = await browser.newPage({ viewport, colorScheme });
      watch(page);
      const check = (what) => assertAccessible(page, modules, `${what}, ${colorScheme}, ${viewport.width} pixels`);
      await openTrace(page, pages, SMALL);
      await check('trace');
      await press(page, 'j', 'j');
      await page.getByTestId('span-details').waitFor();
      await check('span');
      await press(page, 'j', 's');
      await page.getByTestId('statistics').waitFor();
      await check('group and statistics');
      assert.ok(
        (await page.evaluate(() => document.documentElement.scrollWidth)) <= viewport.width,
        'the page is too wide',
      );
      await press(page, '?');
      for (const text of ['next error', 'next match', 'fold all', 'zoom in', 'critical path']) {
        await page.getByTestId('keys').getByText(text, { exact: true }).waitFor();
      }
      await page.close();
    }
  }
  const page = await browser.newPage({ forcedColors: 'active' });
  watch(page);
  await openTrace(page, pages, SMALL);
  const border = (locator) =>
    locator.first().evaluate((element) => {
      const { borderTopWidth, borderTopColor, borderBottomColor, backgroundColor } = getComputedStyle(element);
      return { borderTopWidth, borderTopColor, borderBottomColor, backgroundColor };
    });
  const bar = await border(page.locator('.span-bar'));
  assert.equal(bar.borderTopWidth, '1px');
  assert.notEqual(bar.borderTopColor, (await border(page.locator('body'))).backgroundColor);
  const current = await border(page.locator('.nav a[aria-current]'));
  const other = await border(page.locator('.nav a:not([aria-current])'));
  assert.notEqual(current.borderBottomColor, other.borderBottomColor, 'the current page is marked');
  await page.close();
}

/**
 * @param {object} test
 * @param {import('playwright-core').Browser} test.browser
 * @param {string} test.pages address of the pages
 * @param {string} test.otlp address of the receiver
 * @param {string} test.modules folder node_modules
 */
export async function workInsideTraces({ browser, pages, otlp, modules, post, shoot, watch, timeout }) {
  const sender = new Sender(otlp, post);
  await sendLarge(sender);
  await sendSmall(sender);
  for (const service of ['one', 'two']) {
    await sender.send(service, 'x', [
      sender.span(EQUAL_IDS, 1, 0, `${service} root`, 0, 50),
      sender.span(EQUAL_IDS, 2, 1, `${service} child`, 5, 10),
    ]);
  }
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(timeout);
  watch(page);
  await workInLargeTrace(page, pages);
  await workInSmallTrace(page, pages, shoot);
  await alignClocks(page, pages, shoot);
  await readDetails(page, pages, shoot);
  await openTrace(page, pages, EQUAL_IDS);
  assert.deepEqual(await page.locator('.span-row .span-name').allInnerTexts(), [
    'one root',
    'one child',
    'two root',
    'two child',
  ]);
  await page.close();
  await openUnknownPages(browser, pages, modules);
  await checkAccessibility(browser, pages, modules, watch);
}
