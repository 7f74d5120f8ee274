// What is shown before the first request or task: what to type to see something, and where any service sends to.
import { html } from '../html.js';
import { plural } from '../format.js';
import { Copy, Panel } from './parts.js';

const API = 'http://localhost:8000';

const REGISTER = `curl -s -X POST ${API}/api/register \\
  -H 'Content-Type: application/json' \\
  -d '{"email": "alice@example.com", "name": "Alice",
       "password": "password123"}'`;

const LOGIN = `TOKEN=$(curl -s -X POST ${API}/api/login \\
  -H 'Content-Type: application/json' \\
  -d '{"email": "alice@example.com", "password": "password123"}' |
  sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')`;

const CREATE = `curl -s -X POST ${API}/api/articles/ \\
  -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' \\
  -d '{"title": "My Article", "description": "A brief description",
       "body": "Article content here"}'`;

/** @param {{text: string, label: string}} props */
function Command({ text, label }) {
  return html`<div class="command">
    <pre tabindex="0" aria-label=${label}>${text}</pre>
    <${Copy} label="Copy" text=${() => text} />
  </div>`;
}

/** @param {{status: any}} props */
export function FirstVisit({ status }) {
  const { http, grpc } = status.endpoints;
  const { kept } = status;
  // What people write; the address that is listened on may be another name of it.
  const endpoint = String(http).replace('127.0.0.1', 'localhost');
  return html`<div class="first-visit" data-testid="first-visit">
    <h1>Waiting for the first request</h1>
    <p class="lead">
      This page changes by itself as soon as a service answers one, or a worker runs a task.${' '}
      ${
        kept.spans + kept.logs > 0 &&
        html`Received so far: <a href="/traces">${plural(kept.spans, 'span')}</a>, <a href="/logs">${plural(kept.logs, 'log record')}</a>.`
      }
    </p>
    <div class="first-visit-ways">
      <${Panel} title="Try Pressroom">
        <ol class="steps">
          <li><p>Register:</p><${Command} label="register" text=${REGISTER} /></li>
          <li><p>Log in, and keep the token in the shell:</p><${Command} label="log in" text=${LOGIN} /></li>
          <li><p>Create an article, which a worker then tells of:</p><${Command} label="create an article" text=${CREATE} /></li>
        </ol>
      <//>
      <${Panel} title="Or point any service at it">
        <div class="pad">
          <p>Every OpenTelemetry SDK reads this, in any language:</p>
          <${Command} label="endpoint" text=${`OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}`} />
          <p class="muted">
            OTLP over HTTP (protobuf or JSON) at <code>${endpoint}</code>${
              grpc && html`, over gRPC at <code>${String(grpc).replace('127.0.0.1', 'localhost')}</code>`
            }.
          </p>
        </div>
      <//>
    </div>
  </div>`;
}
