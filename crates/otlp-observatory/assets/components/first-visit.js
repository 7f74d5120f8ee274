// Instructions that are shown before the first request or task: how to create telemetry and where to send it.
import { html, useState } from '../html.js';
import { plural, receiver } from '../format.js';
import { Choice, Copy, Panel } from './parts.js';
import { Text } from './text.js';

/**
 * Commands and code for each language, in which `ENDPOINT` stands for the two variables that a service needs.
 *
 * @type {Record<string, [string, string][]>}
 */
const LANGUAGES = {
  Python: [
    ['Install', 'pip install opentelemetry-distro opentelemetry-exporter-otlp\nopentelemetry-bootstrap -a install'],
    ['Run', 'ENDPOINT opentelemetry-instrument python app.py'],
  ],
  'Node.js': [
    ['Install', 'npm install @opentelemetry/api @opentelemetry/auto-instrumentations-node'],
    ['Run', 'ENDPOINT node --require @opentelemetry/auto-instrumentations-node/register app.js'],
  ],
  Java: [
    ['Install', 'curl -LO https://github.com/open-telemetry/opentelemetry-java-instrumentation/releases/latest/download/opentelemetry-javaagent.jar'],
    ['Run', 'ENDPOINT java -javaagent:opentelemetry-javaagent.jar -jar app.jar'],
  ],
  Go: [
    ['Install', 'go get go.opentelemetry.io/contrib/exporters/autoexport go.opentelemetry.io/otel/sdk'],
    [
      'In main',
      'exporter, err := autoexport.NewSpanExporter(ctx)\nif err != nil {\n\treturn err\n}\nprovider := trace.NewTracerProvider(trace.WithBatcher(exporter))\ndefer provider.Shutdown(ctx)\notel.SetTracerProvider(provider)',
    ],
    ['Run', 'ENDPOINT go run .'],
  ],
  '.NET': [
    [
      'Install',
      'dotnet add package OpenTelemetry.Extensions.Hosting\ndotnet add package OpenTelemetry.Exporter.OpenTelemetryProtocol\ndotnet add package OpenTelemetry.Instrumentation.AspNetCore',
    ],
    [
      'In Program.cs',
      'builder.Services.AddOpenTelemetry()\n    .WithTracing(tracing => tracing.AddAspNetCoreInstrumentation())\n    .UseOtlpExporter();',
    ],
    ['Run', 'ENDPOINT dotnet run'],
  ],
  Rust: [
    ['Install', 'cargo add opentelemetry opentelemetry_sdk\ncargo add opentelemetry-otlp --features grpc-tonic'],
    [
      'In main',
      'let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;\nlet provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()\n    .with_batch_exporter(exporter)\n    .build();\nopentelemetry::global::set_tracer_provider(provider.clone());\n// At the end:\nprovider.shutdown()?;',
    ],
    ['Run', 'ENDPOINT cargo run'],
  ],
  Ruby: [
    ['Install', 'bundle add opentelemetry-sdk opentelemetry-exporter-otlp opentelemetry-instrumentation-all'],
    ['At start-up', "require 'opentelemetry/sdk'\nrequire 'opentelemetry/instrumentation/all'\nOpenTelemetry::SDK.configure(&:use_all)"],
    ['Run', 'ENDPOINT ruby app.rb'],
  ],
  PHP: [
    ['Install', 'pecl install opentelemetry\ncomposer require open-telemetry/sdk open-telemetry/exporter-otlp'],
    ['Run', 'OTEL_PHP_AUTOLOAD_ENABLED=true ENDPOINT php -d extension=opentelemetry app.php'],
  ],
  curl: [
    [
      'Send a span',
      `now=$(date +%s)
curl URL/v1/traces -H 'Content-Type: application/json' -d '{"resourceSpans": [{
  "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my-service"}}]},
  "scopeSpans": [{"spans": [{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
    "name": "GET /cart", "kind": 2, "startTimeUnixNano": "'$now'000000000", "endTimeUnixNano": "'$now'005000000"}]}]}]}'`,
    ],
  ],
};

/** @param {{text: string, label: string}} props */
function Command({ text, label }) {
  return html`<div class="command">
    <pre tabindex="0" aria-label=${label}>${text}</pre>
    <${Copy} label="Copy" text=${() => text} />
  </div>`;
}

/** @param {{steps: [string, string][]}} props */
function Steps({ steps }) {
  return html`<ol class="steps">
    ${steps.map(([text, command]) => html`<li><p>${text}</p><${Command} label=${text} text=${command} /></li>`)}
  </ol>`;
}

/** Instructions for an SDK, in the language that was chosen. @param {{endpoint: string, others: string[]}} props */
function Languages({ endpoint, others }) {
  const [language, setLanguage] = useState('Python');
  const variables = `OTEL_SERVICE_NAME=my-service OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}`;
  const filled = (/** @type {string} */ text) => text.replace('ENDPOINT ', `${variables} \\\n  `).replace('URL', endpoint);
  const options = Object.keys(LANGUAGES).map((name) => /** @type {[string, string]} */ ([name, name]));
  return html`<div class="pad">
    <${Choice} label="Language" options=${options} value=${language} onChange=${setLanguage} />
    <div data-testid="language-steps">
      <${Steps} steps=${LANGUAGES[language].map(([text, command]) => [`${text}:`, filled(command)])} />
    </div>
    <p class="muted">
      ${[endpoint, ...others].map((url, index) => html`${index > 0 && ' and '}<code>${url}</code>`)}${' '}
      ${others.length > 0 ? 'each accept' : 'accepts'} OTLP over gRPC and over HTTP (protobuf or JSON), without TLS.
    </p>
  </div>`;
}

/** @param {{status: any}} props */
export function FirstVisit({ status }) {
  const [endpoint, ...others] = [status.endpoints.http, status.endpoints.grpc].filter(Boolean).map((url) => receiver(url));
  const { kept, first_steps: steps, refused } = status;
  return html`<div class="first-visit" data-testid="first-visit">
    <h1>Waiting for the first request</h1>
    <p class="lead">
      This page updates when a service handles a request or a worker runs a task.${' '}
      ${
        kept.spans + kept.logs > 0 &&
        html`Received so far: <a href="/traces">${plural(kept.spans, 'span')}</a>, <a href="/logs">${plural(kept.logs, 'log record')}</a>.`
      }
    </p>
    ${
      refused.reasons.length > 0 &&
      html`<p class="error-message" role="status" data-testid="last-rejection">
        ${plural(refused.requests, 'request')} rejected, last: <${Text} value=${refused.reasons[0].reason} limit=${200} />
        ${' '}<a href="/status">All reasons</a>
      </p>`
    }
    <div class="first-visit-options">
      ${
        steps.length > 0 &&
        html`<${Panel} title="Try it">
          <${Steps} steps=${steps.map((/** @type {any} */ step) => [step.text, step.command])} />
        <//>`
      }
      <${Panel} title=${steps.length > 0 ? 'Or send from any service' : 'Send from a service'}>
        <${Languages} endpoint=${endpoint} others=${others} />
      <//>
    </div>
  </div>`;
}
