// One upload by tus-js-client: `judged.mjs PACKAGE PROTOCOL URL FILE`
import { createReadStream } from 'node:fs'

const [library, protocol, endpoint, file] = process.argv.slice(2)
const { Upload } = await import(library)
new Upload(createReadStream(file), {
  endpoint,
  protocol,
  retryDelays: [0, 200, 500],
  metadata: { filename: 'judge.bin' },
  onSuccess: () => process.exit(0),
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
}).start()
