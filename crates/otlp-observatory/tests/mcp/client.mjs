// Uses the tools of an observatory by the official client of the Model Context Protocol.
//
//   node client.mjs <node_modules> http <URL> <trace id>
//   node client.mjs <node_modules> stdio <URL of the pages> <trace id> <program>
//
// Prints what it saw as JSON.
import { createRequire } from 'node:module';

const [modules, transport, url, trace, program] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { StdioClientTransport } = require('@modelcontextprotocol/sdk/client/stdio.js');

const client = new Client({ name: 'test', version: '1' });
await client.connect(
  transport === 'http'
    ? new StreamableHTTPClientTransport(new URL(url))
    : new StdioClientTransport({ command: program, args: ['mcp', '--observatory', url] }),
);
const { tools } = await client.listTools();
const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
const failed = (call, of) => call.then(() => null, of);

const abort = new AbortController();
const aborted = failed(call('find_traces', {}, { signal: abort.signal }), (error) => error.message);
abort.abort();

console.log(
  JSON.stringify({
    server: client.getServerVersion().name,
    tools: tools.map((tool) => tool.name),
    trace: (await call('get_trace', { trace_id: trace })).content[0].text,
    unknown_tool: await failed(call('no_such_tool', {}), (error) => error.code),
    wrong_arguments: (await call('get_trace', {})).isError,
    aborted: await aborted,
    after: await client.ping(),
  }),
);
await client.close();
