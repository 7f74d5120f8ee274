// Instructions that are shown before the first request or task: how to create telemetry and where to send it.
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
  // `localhost` is more familiar than the loopback address.
  const endpoint = String(http).replace('127.0.0.1', 'localhost');
  return html`<div class="first-visit" data-testid="first-visit">
    <h1>Waiting for the first request</h1>
    <p class="lead">
      This page updates when a service handles a request or a worker runs a task.${' '}
      ${
        kept.spans + kept.logs > 0 &&
        html`Received so far: <a href="/traces">${plural(kept.spans, 'span')}</a>, <a href="/logs">${plural(kept.logs, 'log record')}</a>.`
      }
    </p>
    <div class="first-visit-options">
      <${Panel} title="Try Pressroom">
        <ol class="steps">
          <li><p>Register:</p><${Command} label="register" text=${REGISTER} /></li>
          <li><p>Log in and store the token in a shell variable:</p><${Command} label="log in" text=${LOGIN} /></li>
          <li><p>Create an article; a worker sends the notifications:</p><${Command} label="create an article" text=${CREATE} /></li>
        </ol>
      <//>
      <${Panel} title="Or send from any service">
        <div class="pad">
          <p>Set this variable for any OpenTelemetry SDK:</p>
          <${Command} label="endpoint" text=${`OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}`} />
          <p class="muted">
            OTLP/HTTP (protobuf or JSON) at <code>${endpoint}</code>${
              grpc && html`, OTLP/gRPC at <code>${String(grpc).replace('127.0.0.1', 'localhost')}</code>`
            }.
          </p>
        </div>
      <//>
    </div>
  </div>`;
}
