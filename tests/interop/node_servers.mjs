// tus servers of npm, with their default settings: `node node_servers.mjs NAME STORE PORT` listens at /files.
//
// STORE is a directory; for `s3` it is the options of the S3 client with the bucket, as JSON.
import { createServer } from 'node:http'

const [name, store, port] = process.argv.slice(2)
const handlers = {
  async file() {
    const { Server } = await import('@tus/server')
    const { FileStore } = await import('@tus/file-store')
    const tus = new Server({ path: '/files', datastore: new FileStore({ directory: store }) })
    return (request, response) => tus.handle(request, response)
  },
  async s3() {
    const { Server } = await import('@tus/server')
    const { S3Store } = await import('@tus/s3-store')
    const tus = new Server({ path: '/files', datastore: new S3Store({ s3ClientConfig: JSON.parse(store) }) })
    return (request, response) => tus.handle(request, response)
  },
  async uploadx() {
    const { default: uploadx } = await import('@uploadx/core')
    const handle = uploadx.tus({ directory: store, path: '/files' })
    return (request, response) => handle(request, response)
  },
}
createServer(await handlers[name]()).listen(Number(port), '127.0.0.1')
