// One upload by tus-js-client; the only argument is JSON, see tus_js.py. Prints JSON.
const fs = require("fs");
const { PassThrough } = require("stream");
const tus = require("tus-js-client");

const asked = JSON.parse(process.argv[2]);
const statuses = [];
let stopping = false;

function tell(more) {
  console.log(JSON.stringify({ url: upload.url, statuses, ...more }));
  process.exit(0);
}

// Of a file the client knows the length; of a stream it does not.
const file = fs.createReadStream(asked.file);
const upload = new tus.Upload(asked.deferred ? file.pipe(new PassThrough()) : file, {
  endpoint: asked.endpoint,
  uploadUrl: asked.url || null,
  uploadSize: asked.parallel > 1 || asked.deferred ? null : fs.statSync(asked.file).size,
  chunkSize: asked.chunk || Infinity,
  parallelUploads: asked.parallel || 1,
  overridePatchMethod: Boolean(asked.override),
  uploadDataDuringCreation: Boolean(asked.during),
  uploadLengthDeferred: Boolean(asked.deferred),
  headers: asked.headers,
  metadata: asked.metadata,
  metadataForPartialUploads: { part: "yes" },
  retryDelays: asked.retries || [0, 100, 500, 1000],
  onAfterResponse: (request, response) => {
    statuses.push(`${request.getMethod()} ${response.getStatus()}`);
  },
  onProgress: (sent) => {
    if (asked.stop && sent >= asked.stop && !stopping) {
      stopping = true;
      upload.abort().then(() => tell({ done: false }));
    }
  },
  onError: (error) => tell({ done: false, error: String(error) }),
  onSuccess: () => tell({ done: true }),
});
upload.start();
