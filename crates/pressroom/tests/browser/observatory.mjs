// Tests the observatory's pages in Chromium: creates an article through the API, finds and reads its trace, filters
// traces, and follows a log record and the exemplar of a chart to their traces. Also checks that HTML in telemetry is
// shown as text, that the console stays empty, and that no other host is contacted.
//
//   node observatory.mjs <API> <pages> <OTLP/HTTP> <folder for screenshots> <Chromium> <node_modules>
//
// Exits with 1 at the first failed assertion.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { walkMetrics } from './metrics.mjs';
import { findAndCompare } from './query.mjs';
import { workInsideTraces } from './trace.mjs';

const [api, pages, otlp, screenshots, executablePath, modules] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');

/** Maximum time from the response 201 until the article's trace is listed. */
const SEEN_WITHIN_MS = 2000;
/** Time limit of all other steps. */
const TIMEOUT_MS = 20_000;

const SCRIPT = '<script>window.hostile = true</script>';
const IMAGE = '<img src="https://example.com/x" onerror="window.hostile = true">';

const consoleMessages = [];
const foreignRequests = new Set();
let shots = 0;

async function post(url, body, headers = {}) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  assert.ok(response.ok, `${url}: ${response.status} ${await response.clone().text()}`);
  return response;
}

/** Sends a failed span with a log record and a metric, with HTML in every string. Returns the trace id. */
async function sendHostileTelemetry() {
  const text = (value) => ({ stringValue: value });
  const now = BigInt(Date.now()) * 1_000_000n;
  const ids = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331' };
  const attributes = [{ key: IMAGE, value: text(SCRIPT) }];
  const resource = { attributes: [{ key: 'service.name', value: text(`shop ${SCRIPT}`) }] };
  const span = {
    ...ids,
    name: `GET ${SCRIPT}`,
    kind: 2,
    startTimeUnixNano: String(now),
    endTimeUnixNano: String(now + 5_000_000n),
    attributes,
    events: [{ name: 'exception', timeUnixNano: String(now), attributes: [{ key: 'exception.message', value: text(IMAGE) }] }],
    status: { code: 2, message: IMAGE },
  };
  const record = { ...ids, timeUnixNano: String(now), severityNumber: 17, body: text(`no such cart ${SCRIPT} ${IMAGE}`), attributes };
  const metric = {
    name: `carts ${SCRIPT}`,
    description: IMAGE,
    gauge: { dataPoints: [{ timeUnixNano: String(now), asInt: '3', attributes }] },
  };
  await post(`${otlp}/v1/traces`, { resourceSpans: [{ resource, scopeSpans: [{ spans: [span] }] }] });
  await post(`${otlp}/v1/logs`, { resourceLogs: [{ resource, scopeLogs: [{ logRecords: [record] }] }] });
  await post(`${otlp}/v1/metrics`, { resourceMetrics: [{ resource, scopeMetrics: [{ metrics: [metric] }] }] });
  return ids.traceId;
}

/** Creates an article. Returns the trace id of the request and the time of the response. */
async function createArticle() {
  const account = { email: 'alice@example.com', name: 'Alice', password: 'password123' };
  const { token } = await (await post(`${api}/api/register`, account)).json();
  const response = await post(
    `${api}/api/articles/`,
    { title: `News ${SCRIPT}`, body: 'x' },
    { authorization: `Bearer ${token.access_token}` },
  );
  assert.equal(response.status, 201);
  return { traceId: response.headers.get('traceresponse').split('-')[1], answered: Date.now() };
}

async function shoot(page, name) {
  shots += 1;
  await page.screenshot({ path: join(screenshots, `${String(shots).padStart(2, '0')}-${name}.png`) });
}

/** Polls `check` until it returns a truthy value. */
async function eventually(what, check, timeout = TIMEOUT_MS) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await check();
    if (value) return value;
    assert.ok(Date.now() < deadline, `timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function watch(page) {
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') consoleMessages.push(message.text());
  });
  page.on('pageerror', (error) => consoleMessages.push(String(error)));
  page.on('dialog', (dialog) => consoleMessages.push(`a dialog: ${dialog.message()}`));
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    if (origin !== new URL(pages).origin && !['data:', 'blob:'].includes(protocol)) foreignRequests.add(request.url());
  });
}

const rowOf = (page, traceId) => page.locator(`[data-testid="trace-row"][data-trace-id="${traceId}"]`);

async function openOverview(page) {
  await page.goto(`${pages}/`);
  await page.getByRole('navigation', { name: 'Pages' }).waitFor();
  await shoot(page, 'first-visit');
  const steps = page.getByTestId('language-steps');
  const { endpoints } = await (await fetch(`${pages}/status`)).json();
  for (const language of ['Node.js', 'Java', 'Go', '.NET', 'Rust', 'Ruby', 'PHP', 'curl', 'Python']) {
    const button = page.getByRole('button', { name: language, exact: true });
    await button.press('Enter');
    assert.equal(await button.getAttribute('aria-pressed'), 'true', language);
    const port = new URL(endpoints.http).port;
    assert.ok((await steps.textContent()).includes(`http://localhost:${port}`), language);
  }
}

async function readArticleTrace(page) {
  await page.goto(`${pages}/traces`);
  await page.getByRole('search').waitFor();
  const { traceId, answered } = await createArticle();
  await rowOf(page, traceId).waitFor({ timeout: SEEN_WITHIN_MS });
  const waited = Date.now() - answered;
  assert.ok(waited <= SEEN_WITHIN_MS, `the trace was seen after ${waited} ms`);
  await shoot(page, 'traces');

  await rowOf(page, traceId).getByRole('link').first().click();
  await page.getByTestId('waterfall').waitFor();
  const spans = page.getByTestId('span-row');
  const named = (name) => spans.filter({ hasText: name });
  // Spans of the API process and of the worker.
  for (const name of ['POST /api/articles/', 'INSERT articles', 'celery.send_task', 'celery.run', 'job.send_notification']) {
    await named(name).first().waitFor();
  }
  await shoot(page, 'trace');

  await named('INSERT articles').first().click();
  await page.getByTestId('sql').filter({ hasText: 'INSERT INTO articles' }).waitFor();
  await named('job.send_notification').first().click();
  const details = page.getByTestId('span-details');
  await details.getByTestId('log-row').filter({ hasText: 'Notifications sent' }).waitFor();
  await page.getByTestId('trace-logs').getByTestId('log-row').filter({ hasText: 'Article created' }).waitFor();
  await shoot(page, 'span');
  return traceId;
}

async function filterByStatus(page, hostile, article) {
  await page.goto(`${pages}/traces`);
  await rowOf(page, article).waitFor();
  await page.getByLabel('Status', { exact: true }).selectOption('error');
  await rowOf(page, article).waitFor({ state: 'detached' });
  await rowOf(page, hostile).waitFor();
  assert.equal(await page.getByTestId('trace-row').count(), 1);
  assert.match(page.url(), /status=error/);
  assert.match(await rowOf(page, hostile).innerText(), /<script>/);
  await shoot(page, 'failed-traces');
  await rowOf(page, hostile).getByRole('link').first().click();
  await page.getByTestId('span-row').first().click();
  await page.getByTestId('exception').waitFor();
  assert.match(await page.getByTestId('span-details').innerText(), /<img src="https:\/\/example\.com\/x" onerror/);
  await shoot(page, 'hostile-span');
}

async function findLogRecord(page, article) {
  await page.goto(`${pages}/logs`);
  await page.getByTestId('log-row').first().waitFor();
  await page.getByLabel('Text', { exact: true }).fill('article created');
  await eventually('the search', async () => (await page.getByTestId('log-row').count()) === 1);
  await shoot(page, 'logs');
  await page.getByTestId('log-row').first().getByTestId('log-trace').click();
  await page.locator(`[data-testid="trace"][data-trace-id="${article}"]`).waitFor();

  await page.goto(`${pages}/logs?level=error`);
  const record = page.getByTestId('log-row').filter({ hasText: 'no such cart' });
  await record.getByRole('button').first().click();
  assert.match(await record.innerText(), /<script>window\.hostile/);
  await shoot(page, 'hostile-log');
}

async function followExemplar(page) {
  await page.goto(`${pages}/metrics`);
  const card = page.locator('[data-testid="instrument"][data-name="http.server.request.duration"]');
  await card.waitFor();
  await shoot(page, 'metrics');
  await card.getByRole('link').first().click();
  const exemplar = page.getByTestId('exemplar').first();
  await exemplar.waitFor();
  await shoot(page, 'metric');
  // A plain click may hit another dot or the pointer's line on top of this dot.
  await exemplar.dispatchEvent('click');
  await page.getByTestId('trace').waitFor();
  await page.getByTestId('span-row').first().waitFor();
}

async function openOtherPages(page) {
  for (const [name, sign] of [
    ['', page.getByText('POST /api/articles/')],
    ['map', page.getByTestId('edge')],
    ['status', page.getByTestId('kept')],
  ]) {
    await page.goto(`${pages}/${name}`);
    await sign.first().waitFor();
    await shoot(page, name || 'overview');
  }
}

/** Asserts that no page is wider than the screen of a phone. */
async function checkNarrowScreen(browser, article) {
  const page = await browser.newPage({ viewport: { width: 390, height: 800 }, colorScheme: 'dark' });
  watch(page);
  for (const name of ['', 'traces', `traces/${article}`, 'logs', 'metrics', 'map']) {
    await page.goto(`${pages}/${name}`);
    await page.getByRole('navigation', { name: 'Pages' }).waitFor();
    await page.waitForLoadState('networkidle').catch(() => {});
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 390, `/${name} is ${width} pixels wide`);
    await shoot(page, `narrow-${name.split('/')[0] || 'overview'}${name.includes('/') ? '-one' : ''}`);
  }
  await page.close();
}

mkdirSync(screenshots, { recursive: true });
const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(TIMEOUT_MS);
  watch(page);
  const assertNoScriptRan = async () => assert.equal(await page.evaluate(() => window.hostile), undefined);
  await openOverview(page);
  const article = await readArticleTrace(page);
  const hostile = await sendHostileTelemetry();
  for (const step of [filterByStatus, (p) => findLogRecord(p, article), followExemplar, openOtherPages, (p) => walkMetrics(p, pages, otlp)]) {
    await step(page, hostile, article);
    await assertNoScriptRan();
  }
  await checkNarrowScreen(browser, article);
  await findAndCompare({ browser, pages, otlp, modules, post, shoot, watch, timeout: TIMEOUT_MS });
  await workInsideTraces({ browser, pages, otlp, modules, post, shoot, watch, timeout: TIMEOUT_MS });
  assert.deepEqual(consoleMessages, [], 'messages in the console');
  assert.deepEqual([...foreignRequests], [], 'requests to other hosts');
  console.log(`${shots} screenshots in ${screenshots}`);
} finally {
  await browser.close();
}
