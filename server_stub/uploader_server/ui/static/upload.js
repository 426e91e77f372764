// Uploads dropped or chosen files by tus, in sessions of their own.
//
// A browser forgets files when the page is reloaded. So the names, sizes and dates of a session's files are kept in its
// storage until the session has ended: choosing the same files again continues the session, and tus-js-client each file.
// The secret of the session and the keys of its uploads are kept with them: without these nobody can write to it.

import { plural } from './format.js'
import { authorization, call, random, secretHeader, url } from './server.js'
import { $, clearNotice, notice } from './view.js'

const AT_ONCE = 3
const CHUNK = 8 << 20 // bytes of one request: with a checksum it arrives whole, or is sent again
const BODY_TYPE = 'application/offset+octet-stream'
const SMALL = 1 << 20 // bytes of a file that is sent with its creation
const DELAYS = [0, 1000, 2000, 4000, 8000, 16_000, 32_000] // milliseconds between attempts without progress
const KEPT = 'uploader-sessions'
const SHOWN = 3 // names in a message

const running = new Map() // session id → its upload
let limits // of the server, with its tus endpoint; undefined until it has answered, null without tus
let show // is called with the id of a session that begins or continues

const stored = () => JSON.parse(localStorage.getItem(KEPT) ?? '{}')

// The secret and the files of a session. Older pages kept the files alone.
function kept(id) {
  const one = stored()[id]
  return Array.isArray(one) ? { secret: '', files: one } : one
}

function store(change) {
  const sessions = stored()
  change(sessions)
  try {
    localStorage.setItem(KEPT, JSON.stringify(sessions))
  } catch {
    // The storage is full: these files can't be resumed after a reload.
  }
}

function forget(id) {
  store((sessions) => delete sessions[id])
  for (const key of Object.keys(localStorage)) {
    if (key.startsWith(`tus::uploader\n${id}\n`)) localStorage.removeItem(key) // of tus-js-client
  }
}

const sameFile = (entry) => `${entry.path}\n${entry.size}\n${entry.date}`

export const runs = (id) => running.has(id)

export async function cancel(id) {
  const own = secretHeader(running.get(id)?.secret ?? kept(id)?.secret)
  running.get(id)?.stop()
  running.delete(id)
  forget(id)
  clearNotice(id)
  const refused = (error) => notice(id, `The session was not cancelled: ${error.message}`)
  await call(`api/upload/cancel/${id}`, {}, own).catch(refused)
}

// Show the upload area once, and what a reload interrupted.
export async function offer() {
  if (limits !== undefined) return
  const health = await call('health')
  limits = health.tus ? { ...health.limits, endpoint: health.tus.endpoint } : null
  // Browsers offer `crypto.subtle` over https and on the loopback only.
  if (limits) limits.checked = Boolean(crypto.subtle) && health.tus.checksumAlgorithms.includes('sha256')
  if (!limits) return
  $('#add').hidden = false
  for (const id of Object.keys(stored())) offerAgain(id, await missing(id))
}

// Return the kept files of a session that the server does not have; null if it has ended without them.
async function missing(id) {
  const progress = await call(`api/upload/progress/${id}`).catch((error) => {
    if (error.status !== 404) throw error
    return { overallStatus: 'unknown' }
  })
  if (!['pending', 'uploading'].includes(progress.overallStatus)) {
    forget(id)
    return progress.overallStatus === 'completed' ? [] : null
  }
  const there = new Set(progress.files.filter((file) => file.status !== 'uploading').map((file) => file.relativePath))
  return kept(id).files.map((file, number) => ({ ...file, number })).filter((file) => !there.has(file.path))
}

function offerAgain(id, left) {
  if (!left?.length) return
  const words = `An upload was interrupted. Choose ${named(left)} again to continue it.`
  notice(id, words, { Discard: () => cancel(id) })
}

function named(files) {
  const names = files.slice(0, SHOWN).map((file) => file.path)
  return files.length > SHOWN ? `${names.join(', ')} and ${plural(files.length - SHOWN, 'other file')}` : names.join(', ')
}

// Upload `files`, each `{ file, path }`: in the interrupted sessions that have them, else in new sessions.
async function add(files) {
  clearNotice('refused')
  const entries = files.map(({ file, path }) => ({ file, path, size: file.size, date: file.lastModified }))
  const rest = new Map(entries.map((entry) => [sameFile(entry), entry]))
  for (const id of Object.keys(stored())) {
    const known = kept(id).files
    if (running.has(id) || !known.some((entry) => rest.has(sameFile(entry)))) continue
    const left = await missing(id)
    if (!left) continue
    const again = left.map((entry) => ({ ...entry, ...rest.get(sameFile(entry)) })).filter((entry) => entry.file)
    start(id, kept(id).secret, again)
    for (const entry of known) rest.delete(sameFile(entry))
  }
  const refused = [...rest.values()].filter((entry) => refusal(entry))
  const accepted = [...rest.values()].filter((entry) => !refusal(entry))
  if (refused.length) notice('refused', `Not sent: ${named(refused)} (${refusal(refused[0])})`)
  while (accepted.length) await create(accepted.splice(0, limits.maxFiles))
}

function refusal({ path, size }) {
  const type = path.includes('.') ? path.split('.').at(-1).toLowerCase() : ''
  if (!limits.allowedTypes.includes('*') && !limits.allowedTypes.includes(type)) return 'type not accepted'
  return size > limits.maxFileSize ? 'too large' : ''
}

async function create(entries) {
  const secret = random()
  const asked = { category: $('#category').value, expectedFiles: entries.length }
  const { sessionId: id } = await call('api/upload/session', asked, secretHeader(secret))
  const keyed = entries.map((entry) => ({ ...entry, key: random() }))
  const files = keyed.map(({ path, size, date, key }) => ({ path, size, date, key }))
  store((sessions) => (sessions[id] = { secret, files }))
  start(id, secret, keyed)
}

// Send `entries`: each has its file and its key, or as `number` its position in a list that an older page kept.
async function start(id, secret, entries) {
  const upload = new SessionUpload(id, secret, entries)
  running.set(id, upload)
  clearNotice(id)
  show(id)
  await upload.run()
  if (upload.stopped) return
  running.delete(id)
  const { refused, lost } = upload
  if (refused.length) notice(`${id}-refused`, `Refused: ${named(refused)} (${refused[0].why})`)
  if (lost.length) {
    const actions = { 'Try again': () => start(id, secret, lost), Discard: () => cancel(id) }
    notice(id, `Not sent: ${named(lost)} (the server did not answer)`, actions)
    return
  }
  const ended = new Set(refused.map(sameFile))
  const left = (await missing(id))?.filter((entry) => !ended.has(sameFile(entry)))
  if (left?.length) {
    offerAgain(id, left)
    return
  }
  if (refused.length) {
    await call(`api/upload/session/${id}/finish`, { failed: refused.length }, secretHeader(secret)).catch(() => {})
  }
  forget(id)
}

// One run over files of a session.
class SessionUpload {
  stopped = false
  refused = [] // by the server, permanently
  lost = [] // without an answer
  #current = new Set()

  constructor(id, secret, entries) {
    this.id = id
    this.secret = secret
    this.waiting = [...entries]
  }

  async run() {
    await import('./vendor/tus-js-client-4.3.1/tus.min.js') // sets window.tus
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.#work()))
  }

  stop() {
    this.stopped = true
    for (const upload of this.#current) upload.abort()
  }

  async #work() {
    while (this.waiting.length && !this.stopped) {
      const entry = this.waiting.shift()
      try {
        await this.#send(entry)
      } catch (error) {
        const { status, code, message } = answered(error)
        if (ENDED.includes(code)) this.waiting = []
        if (isFinal(error) && status !== 401) this.refused.push({ ...entry, why: message })
        else this.lost.push(entry)
      }
    }
  }

  #send({ file, path, size, date, key, number }) {
    let upload
    const sent = new Promise((resolve, reject) => {
      upload = new window.tus.Upload(file, {
        endpoint: url(limits.endpoint).href,
        headers: { ...authorization(), ...secretHeader(this.secret) },
        chunkSize: CHUNK,
        retryDelays: DELAYS,
        uploadDataDuringCreation: size <= SMALL,
        removeFingerprintOnSuccess: true,
        fingerprint: async () => ['uploader', this.id, path, size, date].join('\n'),
        metadata: {
          filename: file.name,
          filetype: file.type,
          sessionId: this.id,
          uploadKey: key ?? `${this.id}/${number}`, // a creation whose answer was lost is not repeated
          relativePath: path,
          lastModified: String(date),
        },
        onBeforeRequest: (request) => this.#check(request, file),
        onShouldRetry: (error) => !isFinal(error),
        onSuccess: resolve,
        onError: reject,
      })
      this.#current.add(upload)
      upload.findPreviousUploads().then((previous) => {
        if (previous.length) upload.resumeFromPreviousUpload(previous[0])
        upload.start()
      }, reject)
    })
    return sent.finally(() => this.#current.delete(upload))
  }

  // Add the checksum of the chunk that a request of tus-js-client is about to send.
  async #check(request, file) {
    if (!limits.checked || request.getHeader('Content-Type') !== BODY_TYPE) return
    const start = Number(request.getHeader('Upload-Offset') ?? 0)
    const chunk = await file.slice(start, start + CHUNK).arrayBuffer()
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', chunk))
    if (this.stopped) throw new Error('stopped') // tus-js-client would send it all the same
    request.setHeader('Upload-Checksum', `sha256 ${btoa(String.fromCharCode(...digest))}`)
  }
}

const ENDED = ['SESSION_ENDED', 'SESSION_NOT_FOUND', 'CANCELLED', 'NOT_YOURS']

function answered(error) {
  const status = error.originalResponse?.getStatus() ?? 0
  try {
    const body = JSON.parse(error.originalResponse.getBody())
    return { status, code: body.error, message: body.message }
  } catch {
    return { status, code: '', message: `status ${status}` }
  }
}

// Whether an error of tus-js-client is a refusal, which a retry can't change.
function isFinal(error) {
  const { status, code } = answered(error)
  return ENDED.includes(code) || (status >= 400 && status < 500 && ![408, 409, 423, 429, 460].includes(status))
}

// The files of a drop with their paths, those in directories included.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean) // before the first await
  const files = []
  for (const entry of entries) await walk(entry, files)
  return files
}

async function walk(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject))
    files.push({ file, path: entry.fullPath.slice(1) })
    return
  }
  const reader = entry.createReader()
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)) // at most 100
    if (!some.length) return
    for (const one of some) await walk(one, files)
  }
}

async function addShown(files) {
  try {
    await offer() // gets the limits, if the server has not answered yet
    await add(await files)
  } catch (error) {
    notice('refused', `The upload did not start: ${error.message}`)
  }
}

// Accept files, and call `whenStarted` with the id of each session that begins or continues.
export function prepare(whenStarted) {
  show = whenStarted
  for (const input of [$('#files'), $('#folder')]) {
    input.addEventListener('change', () => {
      addShown([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })))
      input.value = ''
    })
  }
  const overlay = $('#overlay')
  addEventListener('dragover', (event) => {
    event.preventDefault()
    overlay.hidden = !limits || !event.dataTransfer.types.includes('Files')
  })
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) overlay.hidden = true
  })
  addEventListener('drop', (event) => {
    event.preventDefault()
    overlay.hidden = true
    if (limits && event.dataTransfer.types.includes('Files')) addShown(dropped(event.dataTransfer))
  })
}
