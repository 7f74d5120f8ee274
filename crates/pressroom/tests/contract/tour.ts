// Runs the tour of docs/api.md with the types that openapi-typescript generates from docs/openapi.json. The compiler checks that
// each use of a request and a response agrees with the document; the assertions check that the server does.
//
//   node tour.js <API>
import assert from 'node:assert/strict';
import createClient from 'openapi-fetch';
import type { components, paths } from './schema.js';

type Article = components['schemas']['Article'];
type Answer<T> = { data?: T; error?: components['schemas']['ErrorBody']; response: Response };

/** Returns the body of a successful response. */
function body<T>({ data, error, response }: Answer<T>, status: number): T {
  assert.equal(response.status, status, JSON.stringify(error));
  assert.ok(data !== undefined);
  return data;
}

/** Returns the error of a failed response. */
function failure({ error, response }: Answer<unknown>, status: number): components['schemas']['ErrorBody']['error'] {
  assert.equal(response.status, status);
  assert.ok(error !== undefined);
  assert.equal(error.error.status_code, status);
  return error.error;
}

const api = createClient<paths>({ baseUrl: process.argv[2] });

const account = { email: 'bob@example.com', name: 'Bob', password: 'password123' };
const registered = body(await api.POST('/api/register', { body: account }), 201);
assert.equal(registered.token.token_type, 'Bearer');
assert.match(registered.user.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
assert.equal(failure(await api.POST('/api/register', { body: account }), 409).code, 'email_taken');
const wrong = { email: 'nonsense', name: '', password: 'short' };
const invalid = failure(await api.POST('/api/register', { body: wrong }), 400);
assert.deepEqual(Object.keys(invalid.fields ?? {}), ['email', 'name', 'password']);

const { email, password } = account;
const { token } = body(await api.POST('/api/login', { body: { email, password } }), 200);
const headers = { Authorization: `Bearer ${token.access_token}` };

const draft = { title: 'My Article', description: 'A brief description', body: 'Article content here' };
const keyed = { headers, body: draft, params: { header: { 'Idempotency-Key': 'tour' } } };
const created = await api.POST('/api/articles/', keyed);
const article: Article = body(created, 201);
assert.equal(created.response.headers.get('location'), `/api/articles/${article.slug}`);
const repeated = await api.POST('/api/articles/', keyed);
assert.deepEqual(body(repeated, 201), article);
assert.equal(repeated.response.headers.get('idempotency-replayed'), 'true');
assert.equal(failure(await api.POST('/api/articles/', { body: draft }), 401).code, 'missing_token');
// @ts-expect-error: no field of a request may be null
failure(await api.POST('/api/articles/', { headers, body: { ...draft, description: null } }), 400);

const author = article.author.id;
const query = { search: 'my', per_page: 10, author, sort: 'oldest' };
const page = body(await api.GET('/api/articles/', { params: { query } }), 200);
assert.deepEqual([page.articles, page.total, page.page, page.per_page], [[article], 1, 1, 10]);
const next: string | null = page.next_cursor;
assert.equal(next, null);
failure(await api.GET('/api/articles/', { params: { query: { cursor: 'nonsense' } } }), 400);

const path = { slug: article.slug };
const shown = await api.GET('/api/articles/{slug}', { params: { path } });
assert.deepEqual(body(shown, 200), article);
const tag = shown.response.headers.get('etag') ?? '';
const cached = await api.GET('/api/articles/{slug}', { params: { path, header: { 'If-None-Match': tag } } });
assert.equal(cached.response.status, 304);

const favorite = body(await api.POST('/api/articles/{slug}/favorite', { headers, params: { path } }), 200);
assert.deepEqual([favorite.favorited, favorite.favorites_count], [true, 1]);
const favorites = await api.GET('/api/articles/', { headers, params: { query: { favorited: true } } });
assert.deepEqual(body(favorites, 200).articles, [favorite]);
body(await api.DELETE('/api/articles/{slug}/favorite', { headers, params: { path } }), 200);

const conditional = { headers, params: { path, header: { 'If-Match': tag } } };
const update = { ...conditional, body: { title: 'My Better Article' } };
const updated = body(await api.PUT('/api/articles/{slug}', update), 200);
assert.deepEqual([updated.title, updated.slug, updated.body], ['My Better Article', article.slug, article.body]);
assert.equal(failure(await api.PUT('/api/articles/{slug}', update), 412).code, 'precondition_failed');

const deleted = await api.DELETE('/api/articles/{slug}', { headers, params: { path } });
assert.equal(deleted.response.status, 204);
const missing = failure(await api.GET('/api/articles/{slug}', { params: { path } }), 404);
assert.equal(missing.code, 'article_not_found');
assert.match(missing.trace_id ?? '', /^[0-9a-f]{32}$/);

const renamed = body(await api.PUT('/api/user', { headers, body: { name: 'Bob B.' } }), 200);
assert.equal(renamed.name, 'Bob B.');
assert.deepEqual(body(await api.GET('/api/user', { headers }), 200), renamed);
assert.equal((await api.GET('/api/health', {})).data?.components.database, 'healthy');
body(await api.POST('/api/logout', { headers }), 200);
failure(await api.GET('/api/user', { headers }), 401);
