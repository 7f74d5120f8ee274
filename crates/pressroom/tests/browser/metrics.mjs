// Sends many series, a histogram, an event, and spans with old attribute names; groups the series, reads the heat map,
// focuses the map on a service, and follows a node to its trace, all with the keyboard.
import assert from 'node:assert/strict';

const SERIES = 120;

const attributes = (values) => Object.entries(values).map(([key, value]) => ({ key, value: { stringValue: value } }));

async function send(otlp) {
  const now = BigInt(Date.now()) * 1_000_000n;
  const ago = (seconds) => String(now - BigInt(seconds) * 1_000_000_000n);
  const resource = { attributes: attributes({ 'service.name': 'walk' }) };
  const post = async (path, body) => {
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${otlp}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    assert.equal(response.status, 200);
  };
  const calls = (seconds) =>
    Array.from({ length: SERIES }, (_, index) => ({
      asInt: String(index === 7 ? 100_000 : 1 + (20 - seconds)),
      startTimeUnixNano: ago(30),
      timeUnixNano: ago(seconds),
      attributes: attributes({ user: index === 7 ? 'the hot one' : `user-${index}`, route: `/r${index % 2}` }),
    }));
  const observed = (seconds, count) => ({
    count: String(count),
    sum: 4 * count,
    explicitBounds: [1, 2.5],
    bucketCounts: ['0', '0', String(count)],
    startTimeUnixNano: ago(30),
    timeUnixNano: ago(seconds),
  });
  const cumulative = { aggregationTemporality: 2 };
  const metrics = [
    { name: 'walk.calls', sum: { ...cumulative, isMonotonic: true, dataPoints: [20, 10].flatMap(calls) } },
    { name: 'walk.duration', unit: 's', histogram: { ...cumulative, dataPoints: [observed(20, 5), observed(10, 9)] } },
  ];
  await post('metrics', { resourceMetrics: [{ resource, scopeMetrics: [{ metrics }] }] });
  const logRecords = [{ timeUnixNano: ago(1), eventName: 'walk.event', attributes: attributes({ index: '0' }) }];
  await post('logs', { resourceLogs: [{ resource, scopeLogs: [{ logRecords }] }] });
  const spans = [
    [3, { 'db.system': 'sqlite', 'db.statement': 'SELECT 1' }],
    [4, { 'messaging.system': 'kafka', 'messaging.destination': 'orders' }],
  ].map(([kind, values], index) => ({
    traceId: `0af7651916cd43dd8448eb211c80320${index}`,
    spanId: `b7ad6b716920333${index}`,
    name: 'walk',
    kind,
    startTimeUnixNano: ago(2),
    endTimeUnixNano: ago(1),
    attributes: attributes(values),
  }));
  await post('traces', { resourceSpans: [{ resource, scopeSpans: [{ spans }] }] });
}

/** @param {any} page @param {string} pages @param {string} otlp */
export async function walkMetrics(page, pages, otlp) {
  await send(otlp);
  await page.goto(`${pages}/metrics/walk.calls`);
  const shown = page.getByTestId('series-count');
  await shown.filter({ hasText: 'the largest 100 of 120 series' }).waitFor();
  const rows = page.getByTestId('series').locator('tbody tr');
  assert.match(await rows.first().innerText(), /the hot one.*100,000/s);
  const by = page.getByLabel('Group by', { exact: true });
  await by.locator('option', { hasText: 'route' }).waitFor({ state: 'attached' });
  await by.focus();
  await page.keyboard.type('route');
  await page.keyboard.press('Enter');
  await shown.filter({ hasText: '2 groups' }).waitFor();
  assert.match(await rows.first().innerText(), /route=\/r1/);

  await page.goto(`${pages}/metrics/walk.duration`);
  await page.getByRole('img', { name: '9 observations, most of them > 2.5 s' }).waitFor();
  assert.match(await rows.first().innerText(), /> 2.5 s.*4 s/s);

  await page.goto(`${pages}/logs?service=walk`);
  const event = page.getByTestId('log-row').first();
  await event.waitFor();
  assert.match(await event.innerText(), /walk\.event/);
  assert.doesNotMatch(await event.innerText(), /null/);

  for (const [id, name] of [
    ['queue:kafka/orders', 'orders'],
    ['database:sqlite/sqlite', 'sqlite'],
  ]) {
    await page.goto(`${pages}/map`);
    await page.getByLabel('Focus on').focus();
    await page.locator('datalist option[value="walk"]').waitFor({ state: 'attached' });
    await page.keyboard.type('walk');
    await page.getByRole('link', { name: 'All services' }).waitFor();
    const node = page.locator(`[data-node="${id}"]`);
    assert.match(await node.textContent(), new RegExp(name));
    await node.focus();
    await page.keyboard.press('Enter');
    await page.getByTestId('trace-row').filter({ hasText: 'walk' }).first().waitFor();
  }
}
