// A server that calls itself, instrumented by the SDK for Node with its defaults: only the environment says where to send.
const { NodeSDK } = require("@opentelemetry/sdk-node");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");

const sdk = new NodeSDK({ instrumentations: [new HttpInstrumentation()] });
sdk.start();
const http = require("node:http");

const server = http.createServer((_, response) => response.end("ok"));
server.listen(0, "127.0.0.1", async () => {
  for (let request = 0; request < 5; request++) {
    const url = `http://127.0.0.1:${server.address().port}/cart`;
    await new Promise((resolve) => http.get(url, (response) => response.resume().on("end", resolve)));
  }
  server.close();
  await sdk.shutdown();
});
