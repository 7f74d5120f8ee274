// Takes the pictures of the documentation in Chromium, each in light and dark: an article's trace, the span of a statement in
// it, and the page "Problems" of a small shop. Run by scripts/screenshots.
//
//   node screenshots.mjs <API> <pages> <OTLP/HTTP> <folder for pictures> <Chromium> <node_modules>
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Sender } from './trace.mjs';

const [api, pages, otlp, folder, executablePath, modules] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');

async function request(method, url, body, token) {
  const headers = { 'content-type': 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return response;
}

const post = (url, body, token) => request('POST', url, body, token);

/** Creates an article that a reader is notified of. Returns the trace id of the request. */
async function createArticle() {
  const register = async (name) => {
    const account = { email: `${name.toLowerCase()}@example.com`, name, password: 'password123' };
    return (await (await post(`${api}/api/register`, account)).json()).token.access_token;
  };
  const [alice, bob] = [await register('Alice'), await register('Bob')];
  const create = (title) => post(`${api}/api/articles/`, { title, description: '', body: 'Article content here' }, alice);
  const { slug } = await (await create('My first article')).json();
  await post(`${api}/api/articles/${slug}/favorite`, undefined, bob);
  const response = await create('My second article');
  return response.headers.get('traceresponse').split('-')[1];
}

/** Sends requests of a shop: too many statements, a failed payment, and a slow statement. */
async function runShop() {
  const sender = new Sender(otlp, post);
  const trace = () => randomBytes(16).toString('hex');
  const server = (id, name, duration, status, more = {}) =>
    sender.span(id, 1, 0, name, 0, duration, {
      kind: 2,
      attributes: {
        'http.request.method': name.split(' ')[0],
        'http.route': name.split(' ')[1],
        'http.response.status_code': status,
      },
      ...more,
    });
  const statement = (id, span, start, duration, text) =>
    sender.span(id, span, 1, 'SELECT', start, duration, {
      kind: 3,
      attributes: { 'db.system.name': 'postgresql', 'db.query.text': text },
    });
  const [list, pay, report] = [trace(), trace(), trace()];
  const books = Array.from({ length: 40 }, (_, index) =>
    statement(list, index + 2, index * 3, 2.5, `SELECT name FROM author WHERE id = ${index}`),
  );
  await sender.send('shop', '1', [server(list, 'GET /books', 130, 200), ...books]);
  const error = 'card declined';
  const call = sender.span(pay, 2, 1, 'POST', 4, 30, {
    kind: 3,
    error,
    attributes: { 'http.request.method': 'POST', 'url.full': 'https://pay.example/charges', 'error.type': 'CardDeclined' },
  });
  await sender.send('shop', '1', [server(pay, 'POST /orders', 40, 500, { error }), call]);
  const slow = statement(report, 2, 5, 410, 'SELECT day, sum(price) FROM orders GROUP BY day');
  await sender.send('shop', '1', [server(report, 'GET /report', 420, 200), slow]);
}

async function openTrace(page, traceId) {
  await page.goto(`${pages}/traces/${traceId}`);
  for (const name of ['POST /api/articles/', 'celery.run', 'job.send_notification']) {
    await page.getByTestId('span-row').filter({ hasText: name }).first().waitFor();
  }
}

mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--no-first-run'] });
try {
  const article = await createArticle();
  await runShop();
  for (const colorScheme of ['light', 'dark']) {
    const page = await browser.newPage({ viewport: { width: 1200, height: 720 }, colorScheme });
    page.setDefaultTimeout(60_000);
    const shoot = (name, height) =>
      page.screenshot({ path: join(folder, `${name}-${colorScheme}.png`), clip: { x: 0, y: 0, width: 1200, height } });
    await openTrace(page, article);
    await shoot('trace', 720);
    await page.getByTestId('span-row').filter({ hasText: 'INSERT articles' }).first().click();
    await page.getByTestId('sql').waitFor();
    await shoot('span', 620);
    await page.goto(`${pages}/problems?service=shop`);
    await page.locator('[data-testid="problem"][data-kind="slow_statement"]').first().waitFor();
    await shoot('problems', 360);
    await page.close();
  }
} finally {
  await browser.close();
}
