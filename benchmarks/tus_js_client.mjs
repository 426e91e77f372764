// Uploads files with tus-js-client: `node tus_js_client.mjs ENDPOINT LIST JOBS PARTS`, JOBS files at once, each in PARTS.
import { createReadStream, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { Upload } from 'tus-js-client'

const [endpoint, list, jobs, parts] = process.argv.slice(2)
const paths = readFileSync(list, 'utf8').split('\n').filter(Boolean)

function send(path) {
  return new Promise((resolve, reject) => {
    const upload = new Upload(createReadStream(path), {
      endpoint,
      metadata: { filename: basename(path) },
      parallelUploads: Number(parts),
      uploadDataDuringCreation: Number(parts) === 1, // one request for a small file; not possible with parts
      storeFingerprintForResuming: false,
      onSuccess: resolve,
      onError: reject,
    })
    upload.start()
  })
}

async function work() {
  for (let path = paths.shift(); path; path = paths.shift()) await send(path)
}

await Promise.all(Array.from({ length: Number(jobs) }, work))
