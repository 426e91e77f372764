// A page in Chromium opens a session on another origin, uploads a file with tus-js-client and counts its events.
//
// The argument is JSON: `port` is the port of the page's own origin, `server` the address of the upload server,
// `bytes` the size of the file. The result is printed as JSON: `sent`, `status` of the session, `events`.
import { createServer } from 'node:http'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { chromium } from 'playwright-core'

const { port, server, bytes } = JSON.parse(process.argv[2])
const packageOf = (name) => dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
const scripts = {
  '/tus.js': join(packageOf('tus-js-client'), 'dist/tus.min.js'),
  '/socket.js': join(packageOf('socket.io-client'), 'dist/socket.io.min.js'),
}
const page = '<!doctype html><title>upload</title><script src="/tus.js"></script><script src="/socket.js"></script>'
const site = createServer((request, response) => {
  const script = scripts[request.url]
  response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html')
  response.end(script ? readFileSync(script) : page)
})
await new Promise((resolve) => site.listen(port, '127.0.0.1', resolve))

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'],
})
try {
  const tab = await browser.newPage()
  await tab.goto(`http://127.0.0.1:${port}/`)
  const result = await tab.evaluate(upload, { server, bytes })
  console.log(JSON.stringify(result))
} finally {
  await browser.close()
  site.close()
}

// Runs in the page.
async function upload({ server, bytes }) {
  const session = await (
    await fetch(`${server}/api/upload/session`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ category: 'personal', expectedFiles: 1 }),
    })
  ).json()
  const events = []
  const socket = io(server, { transports: ['websocket'] })
  await new Promise((resolve, reject) => {
    socket.on('connect', resolve)
    socket.on('connect_error', reject)
  })
  const ended = new Promise((resolve) => {
    socket.on('upload-progress', (event) => {
      events.push(event.overallStatus)
      if (event.overallStatus === 'completed') resolve(event.overallStatus)
    })
  })
  socket.emit('join-session', session.sessionId)
  const file = new Blob([new Uint8Array(bytes).fill(97)])
  await new Promise((resolve, reject) => {
    new tus.Upload(file, {
      endpoint: new URL(session.tus.endpoint, server).href,
      metadata: { filename: 'page.mp4', sessionId: session.sessionId },
      chunkSize: 5 << 20,
      retryDelays: null,
      onSuccess: resolve,
      onError: reject,
    }).start()
  })
  const status = await ended
  socket.disconnect()
  return { sent: file.size, status, events: events.length }
}
