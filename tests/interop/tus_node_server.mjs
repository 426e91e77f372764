// @tus/server with a FileStore: `node tus_node_server.mjs DIRECTORY CUTS` prints its port.
//
// CUTS is a JSON list of numbers, empty for no cuts. Every third PATCH with a body is cut: the first one after CUTS[0]
// bytes of its body (or all, if it has fewer), the next one after CUTS[1], and so on, round and round. `GET /counts`
// returns the number of requests by method; a PATCH without a body, which ends an empty file, is not counted.
import { createServer } from 'node:http'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'

// Node.js 20 closes the stream of an answer twice if the client closes its connection just when the answer ends.
process.on('uncaughtException', (error) => {
  if (error.code === 'ERR_INVALID_STATE') return
  console.error(error)
  process.exit(1)
})

const [directory, list] = process.argv.slice(2)
const cuts = JSON.parse(list)
const counts = { POST: 0, PATCH: 0, HEAD: 0, GET: 0, OPTIONS: 0, DELETE: 0, broken: 0, patched: 0 }
const tus = new Server({ path: '/files', datastore: new FileStore({ directory }) })

function watch(request, left) {
  request.pause() // so that listening starts nothing: tus reads when it is ready
  request.on('data', (piece) => {
    counts.patched += piece.length
    left -= piece.length
    if (left <= 0) request.socket.destroy()
  })
}

const server = createServer((request, response) => {
  if (request.url === '/counts') return response.end(JSON.stringify(counts))
  const length = Number(request.headers['content-length'])
  const empty = request.method === 'PATCH' && length === 0
  if (!empty) counts[request.method] += 1
  if (request.method === 'PATCH' && !empty) {
    const breaks = cuts.length && counts.PATCH % 3 === 0
    watch(request, breaks ? Math.min(length, cuts[counts.broken++ % cuts.length]) : Infinity)
  }
  return tus.handle(request, response)
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
