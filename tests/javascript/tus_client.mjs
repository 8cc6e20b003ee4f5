// Uploads a file by tus with the public JavaScript client, which retries by itself:  node tus_client.mjs MODULES URL TOKEN FILE SHARE PATH PART_BYTES
// MODULES is the directory with node_modules. The body of each request is a stream, so it is sent in chunks of unknown number.

import { createReadStream, statSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, endpoint, token, file, share, path, partBytes] = process.argv.slice(2);
const { Upload } = createRequire(`${modules}/`)("tus-js-client");
const RETRIES = 300;
const RETRY_MS = 200;

const upload = new Upload(createReadStream(file), {
  endpoint,
  uploadSize: statSync(file).size,
  chunkSize: Number(partBytes),
  retryDelays: Array(RETRIES).fill(RETRY_MS),
  headers: { Authorization: `Bearer ${token}` },
  metadata: { share, path },
  onError: (error) => {
    console.error(String(error));
    process.exitCode = 1;
  },
});
upload.start();
