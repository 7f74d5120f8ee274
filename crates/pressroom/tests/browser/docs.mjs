// Tests the API's documentation page in Chromium: each parameter is sent where the OpenAPI document says, and the response
// is shown with its headers. Also checks that the console stays empty and that no other host is contacted.
//
//   node docs.mjs <API> <Chromium> <node_modules>
//
// Exits with 1 at the first failed assertion.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [api, executablePath, modules] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');

const TIMEOUT_MS = 20_000;

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  const messages = [];
  const hosts = new Set();
  // Chromium reports each response from 400 on as an error of the network, which the steps below expect.
  page.on('console', (message) => message.text().startsWith('Failed to load resource') || messages.push(message.text()));
  page.on('pageerror', (error) => messages.push(String(error)));
  page.on('request', (request) => hosts.add(new URL(request.url()).origin));
  await page.goto(`${api}/api/docs`);

  /** Fills in an operation's fields and sends it. Returns the request, its headers, the response and the shown text. */
  async function send(method, path, values = {}, body = undefined) {
    const operation = page
      .locator('details', { has: page.locator(`.method.${method}`) })
      .filter({ has: page.getByText(path, { exact: true }) });
    await operation.evaluate((details) => { details.open = true; });
    for (const input of await operation.locator('input').all()) await input.fill('');
    for (const [name, value] of Object.entries(values)) await operation.locator(`input[name="${name}"]`).fill(value);
    if (body !== undefined) await operation.locator('textarea').fill(JSON.stringify(body));
    const output = operation.locator('pre');
    await output.evaluate((pre) => { pre.textContent = ''; });
    const [request] = await Promise.all([
      page.waitForRequest((sent) => sent.method() === method.toUpperCase()),
      operation.getByRole('button', { name: 'Send' }).click(),
    ]);
    const response = await request.response();
    await output.filter({ hasText: String(response.status()) }).waitFor();
    return {
      url: new URL(request.url()),
      headers: await request.allHeaders(),
      status: response.status(),
      shown: await output.textContent(),
    };
  }

  const account = { email: 'docs@example.com', name: 'Docs', password: 'password123' };
  assert.equal((await send('post', '/api/register', {}, account)).status, 201);

  const article = { title: 'Documented', body: 'x' };
  const created = await send('post', '/api/articles/', { 'Idempotency-Key': 'key 1' }, article);
  assert.equal(created.status, 201);
  assert.equal(created.headers['idempotency-key'], 'key 1');
  assert.equal(created.url.search, '');
  const repeated = await send('post', '/api/articles/', { 'Idempotency-Key': 'key 1' }, article);
  assert.match(repeated.shown, /^idempotency-replayed: true$/m);
  const slug = created.shown.match(/^location: \/api\/articles\/(.+)$/m)[1];
  const tag = created.shown.match(/^etag: (".+")$/m)[1];

  const cached = await send('get', '/api/articles/{slug}', { slug, 'If-None-Match': tag });
  assert.equal(cached.headers['if-none-match'], tag);
  assert.equal(cached.url.pathname + cached.url.search, `/api/articles/${slug}`);
  assert.match(cached.shown, /^(304|200) /);

  const refused = await send('put', '/api/articles/{slug}', { slug, 'If-Match': '"1-1"' }, { title: 'Overwritten' });
  assert.equal(refused.headers['if-match'], '"1-1"');
  assert.equal(refused.url.search, '');
  assert.equal(refused.status, 412);
  const updated = await send('put', '/api/articles/{slug}', { slug, 'If-Match': tag }, { title: 'Rewritten' });
  assert.equal(updated.status, 200);
  assert.match(updated.shown, /^etag: "/m);
  assert.match(updated.shown, /^traceresponse: 00-/m);

  const listed = await send('get', '/api/articles/', { search: 'R&D=ü', per_page: '5', favorited: 'true' });
  assert.equal(listed.status, 200);
  assert.deepEqual(Object.fromEntries(listed.url.searchParams), { search: 'R&D=ü', per_page: '5', favorited: 'true' });

  assert.deepEqual(messages, []);
  assert.deepEqual([...hosts], [new URL(api).origin]);
} finally {
  await browser.close();
}
