// One upload by tus-js-client, as the JSON in the first argument says; prints what came of it, as JSON.
//
//   library     the package; by default tus-js-client
//   file        what is sent
//   stream      send it as a stream whose size nobody knows
//   options     of tus.Upload
//   storage     a file that keeps upload URLs: an unfinished upload of `file` is resumed
//   stopAfter   abort in the middle of a body, once more than so many bytes are sent
//   terminate   take the upload back at its end, be it whole or aborted
import { createReadStream } from 'node:fs'
import { PassThrough } from 'node:stream'
import { FileUrlStorage } from 'tus-js-client'

const given = JSON.parse(process.argv[2])
const { library = 'tus-js-client', file, stream, options, storage, stopAfter = Infinity, terminate = false } = given
const { Upload } = await import(library)
const requests = []
let stopped = false

async function end() {
  if (stopped || terminate) await upload.abort(terminate)
  console.log(JSON.stringify({ url: upload.url, stopped, requests }))
}

const upload = new Upload(stream ? createReadStream(file).pipe(new PassThrough()) : createReadStream(file), {
  retryDelays: null,
  ...options,
  ...(storage && { urlStorage: new FileUrlStorage(storage) }),
  onAfterResponse: (request, response) => {
    requests.push(`${request.getMethod()} ${response.getStatus()}`)
  },
  onProgress: (sent) => {
    if (sent <= stopAfter || stopped) return
    stopped = true
    end()
  },
  onSuccess: end,
  onError: (error) => {
    throw error
  },
})
const [previous] = storage ? await upload.findPreviousUploads() : []
if (previous) upload.resumeFromPreviousUpload(previous)
upload.start()
