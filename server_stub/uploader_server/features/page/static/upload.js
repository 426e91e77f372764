// Uploads dropped or chosen files by tus, in sessions of their own.
//
// A session is paused by the user, or interrupted: this page has not its files. A browser forgets files when the page is
// reloaded. So the names, sizes and dates of a session's files are kept in its
// storage until the session has ended: choosing the same files again continues the session, and tus-js-client each file.
// The secret of the session and the keys of its uploads are kept with them: without these nobody can write to it.

import { named, size as sized } from './format.js'
import { $ } from './nodes.js'
import { authorization, back, call, random, secretHeader, sleep, url } from './server.js'
import { clearNotice, notice } from './view.js'

const AT_ONCE = 3
const CHUNK = 8 << 20 // bytes of one request: with a checksum it arrives whole, or is sent again
const BODY_TYPE = 'application/offset+octet-stream'
const SMALL = 1 << 20 // bytes of a file that is sent with its creation
const DELAYS = [0, 1000, 2000, 4000, 8000, 16_000, 32_000] // milliseconds between attempts without progress
const KEPT = 'uploader-sessions'

// An entry is a file to send: `file`, `path`, `size`, `date`, its `key`, or as `number` its position in a list that an
// older page kept; its `state` is waiting, uploading, completed, failed (`why`) or cancelled.
const uploads = new Map() // session id → its SessionUpload in this tab
const missed = new Map() // session id → the kept files that the server has not, and this tab does not send
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
  missed.delete(id)
  store((sessions) => delete sessions[id])
  for (const key of Object.keys(localStorage)) {
    if (key.startsWith(`tus::uploader\n${id}\n`)) localStorage.removeItem(key) // of tus-js-client
  }
}

const sameFile = (entry) => `${entry.path}\n${entry.size}\n${entry.date}`

const runs = (id) => uploads.get(id)?.running ?? false

// Whether this page sends files of a session, or may continue to.
export const isOpen = (id) => uploads.has(id) && !uploads.get(id).over

export const entries = (id) => uploads.get(id)?.entries ?? []

export const isPaused = (id) => uploads.get(id)?.paused ?? false

export const pause = (id) => uploads.get(id).pause()

export const resume = (id) => uploads.get(id).resume()

// The sessions that were interrupted here, and the files to choose again of each.
export const interrupted = () => [...missed.keys()]

export const filesToChoose = (id) => missed.get(id) ?? []

// Open the dialog for the files of an interrupted session.
export function choose(id) {
  const inFolder = filesToChoose(id).every((entry) => entry.path.includes('/'))
  $(inFolder ? '#folder' : '#files').click()
}

export async function cancel(id) {
  const own = secretHeader(uploads.get(id)?.secret ?? kept(id)?.secret)
  uploads.get(id)?.stop()
  forget(id)
  const refused = (error) => notice(id, `The session was not cancelled: ${error.message}`)
  await call(`api/upload/cancel/${id}`, {}, own).catch(refused)
}

export const cancelFile = (id, entry) => uploads.get(id).cancel(entry)

// Send files again: those that wait for a result in their session, unless it is over, and all others in one new session.
export async function retry(id, waiting, ended) {
  const upload = uploads.get(id)
  const [here, anew] = upload.over ? [[], [...waiting, ...ended]] : [waiting, ended]
  for (const entry of here) entry.state = 'waiting'
  upload.entries = upload.entries.filter((entry) => !anew.includes(entry))
  const sending = here.length && !upload.running ? [follow(upload)] : []
  const chosen = anew.map(({ file, path, size, date }) => ({ file, path, size, date }))
  if (chosen.length) sending.push(create(chosen, upload.category))
  await Promise.all(sending)
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
  for (const id of Object.keys(stored())) miss(id, (await missing(id)).left)
}

// Return the kept files of a session that the server does not have (none if it has ended), and how many it still expects.
async function missing(id) {
  const progress = await call(`api/upload/progress/${id}`).catch((error) => {
    if (error.status !== 404) throw error
    return { overallStatus: 'unknown' }
  })
  if (!['pending', 'uploading'].includes(progress.overallStatus)) {
    forget(id)
    return { over: true, left: [], expected: 0 }
  }
  const there = new Set(progress.files.filter((file) => file.status !== 'uploading').map((file) => file.relativePath))
  const left = kept(id).files.map((file, number) => ({ ...file, number })).filter((file) => !there.has(file.path))
  return { over: false, left, expected: progress.totalFiles - progress.completedFiles - progress.failedFiles }
}

function miss(id, left) {
  if (left.length) missed.set(id, left)
}

// Upload `files`, each `{ file, path }`: in the interrupted sessions that have them, else in new sessions.
async function add(files) {
  clearNotice('refused')
  const chosen = files.map(({ file, path }) => ({ file, path, size: file.size, date: file.lastModified }))
  const rest = new Map(chosen.map((entry) => [sameFile(entry), entry]))
  for (const id of Object.keys(stored())) {
    const known = kept(id).files
    if (runs(id) || !known.some((entry) => rest.has(sameFile(entry)))) continue
    const { over, left } = await missing(id)
    if (over) continue
    const again = left.map((entry) => ({ ...entry, ...rest.get(sameFile(entry)) })).filter((entry) => entry.file)
    start(new SessionUpload(id, kept(id).secret, $('#category').value, again))
    for (const entry of known) rest.delete(sameFile(entry))
  }
  const refused = Map.groupBy(rest.values(), refusal)
  const accepted = refused.get('') ?? []
  refused.delete('')
  const lines = [...refused].map(([reason, list]) => `Not sent: ${named(list)} (${reason})`)
  if (lines.length) notice('refused', lines.join('\n'))
  while (accepted.length) await create(accepted.splice(0, limits.maxFiles), $('#category').value)
}

// Why a file is not sent; empty if it is.
function refusal({ path, size }) {
  const type = path.includes('.') ? path.split('.').at(-1).toLowerCase() : ''
  if (!limits.allowedTypes.includes('*') && !limits.allowedTypes.includes(type)) {
    return type ? `type .${type} is not accepted` : 'a file without an extension is not accepted'
  }
  return size > limits.maxFileSize ? `larger than ${sized(limits.maxFileSize)}` : ''
}

async function create(chosen, category) {
  const secret = random()
  const total = chosen.reduce((sum, entry) => sum + entry.size, 0)
  const headers = { ...secretHeader(secret), 'X-Expected-Bytes': String(total) }
  const { sessionId: id } = await call('api/upload/session', { category, expectedFiles: chosen.length }, headers)
  const keyed = chosen.map((entry) => ({ ...entry, key: random() }))
  const files = keyed.map(({ path, size, date, key }) => ({ path, size, date, key }))
  store((sessions) => (sessions[id] = { secret, files }))
  start(new SessionUpload(id, secret, category, keyed))
}

function start(upload) {
  uploads.set(upload.id, upload)
  missed.delete(upload.id)
  show(upload.id)
  return follow(upload)
}

// Send the waiting entries of a session, and end it when each of its files has a result.
async function follow(upload) {
  const { id, secret } = upload
  await upload.run()
  if (upload.stopped) {
    forget(id)
    return
  }
  if (upload.lost) return // it stays open for another attempt
  const sent = new Set(upload.entries.map(sameFile))
  const { over, left, expected } = await missing(id)
  upload.over = true
  const unsent = left.filter((entry) => !sent.has(sameFile(entry)))
  if (unsent.length) {
    upload.over = false
    miss(id, unsent)
    return
  }
  if (!over && expected > 0) {
    await call(`api/upload/session/${id}/finish`, { failed: expected }, secretHeader(secret)).catch(() => {})
  }
  forget(id)
}

// The upload of files of a session.
class SessionUpload {
  running = false
  stopped = false
  over = false // whether each file has a result
  paused = false // by the user
  #sending = new Map() // entry → its attempt
  #resumed // a promise while it is paused

  constructor(id, secret, category, chosen) {
    Object.assign(this, { id, secret, category })
    this.entries = chosen.map((entry) => ({ ...entry, state: 'waiting', why: '', sent: 0 }))
  }

  // Whether the server did not answer for a file.
  get lost() {
    return this.entries.some((entry) => entry.state === 'failed' && !entry.final)
  }

  async run() {
    this.running = true
    await import('./vendor/tus-js-client-4.3.1/tus.min.js') // sets window.tus
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.#work()))
    this.running = false
  }

  // End the running requests. Each file waits, and continues at the server's offset.
  pause() {
    this.paused = true
    this.#resumed = Promise.withResolvers()
    for (const [entry, sending] of this.#sending) {
      entry.state = 'waiting'
      sending.upload.abort(false).catch(() => {})
      sending.end()
    }
  }

  resume() {
    this.paused = false
    this.#resumed?.resolve()
  }

  stop() {
    this.resume()
    this.stopped = this.over = true
    for (const entry of this.entries) if (entry.state === 'waiting') entry.state = 'cancelled'
    for (const entry of this.#sending.keys()) this.cancel(entry, false)
  }

  // Cancel one file; with `terminate` the server removes what it has of it.
  async cancel(entry, terminate = true) {
    entry.state = 'cancelled'
    const sending = this.#sending.get(entry)
    if (!sending) return
    await sending.upload.abort(terminate).catch(() => {})
    sending.end()
  }

  async #work() {
    for (;;) {
      if (this.paused) await this.#resumed.promise
      const entry = this.entries.find((one) => one.state === 'waiting')
      if (!entry || this.stopped) return
      entry.state = 'uploading'
      try {
        await this.#send(entry)
        if (entry.state === 'uploading') entry.state = 'completed'
      } catch (error) {
        if (entry.state !== 'uploading') continue // cancelled, or paused
        const { status, code, message } = answered(error)
        const ended = ENDED.includes(code)
        if (ended) this.stop()
        entry.state = ended ? 'cancelled' : 'failed'
        entry.final = isFinal(error) && status !== 401
        entry.why = status ? message : 'The server did not answer'
      }
    }
  }

  // Send one file, with further attempts. While the server is lost they wait for it, and don't count.
  async #send(entry) {
    const upload = this.#upload(entry)
    const previous = await upload.findPreviousUploads()
    if (previous.length) upload.resumeFromPreviousUpload(previous[0])
    let attempt = 0
    let before = entry.sent
    while (entry.state === 'uploading') {
      if (this.paused) await this.#resumed.promise
      try {
        await this.#attempt(entry, upload)
        return
      } catch (error) {
        if (entry.state !== 'uploading' || isFinal(error)) throw error
        const wasLost = await back()
        if (wasLost || entry.sent > before) attempt = 0
        before = entry.sent
        if (wasLost) continue
        if (attempt === DELAYS.length) throw error
        await sleep(DELAYS[attempt])
        attempt += 1
      }
    }
  }

  #attempt(entry, upload) {
    return new Promise((resolve, reject) => {
      upload.options.onSuccess = resolve
      upload.options.onError = reject
      this.#sending.set(entry, { upload, end: resolve })
      upload.start()
    }).finally(() => this.#sending.delete(entry))
  }

  #upload(entry) {
    const { file, path, size, date, key, number } = entry
    return new window.tus.Upload(file, {
      endpoint: url(limits.endpoint).href,
      headers: { ...authorization(), ...secretHeader(this.secret) },
      chunkSize: CHUNK,
      retryDelays: null, // `#send` repeats: it waits for a server that does not answer
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
      onBeforeRequest: (request) => this.#check(request, entry),
      onChunkComplete: (_, accepted) => (entry.sent = accepted),
    })
  }

  // Add the checksum of the chunk that a request of tus-js-client is about to send.
  async #check(request, entry) {
    if (!limits.checked || request.getHeader('Content-Type') !== BODY_TYPE) return
    const start = Number(request.getHeader('Upload-Offset') ?? 0)
    const chunk = await entry.file.slice(start, start + CHUNK).arrayBuffer()
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', chunk))
    if (entry.state !== 'uploading') throw new Error('stopped') // tus-js-client would send it all the same
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
  const accept = (event) => {
    event.preventDefault()
    overlay.hidden = !limits || !event.dataTransfer.types.includes('Files')
  }
  addEventListener('dragenter', accept) // else a drop between the overlay's `dragenter` and `dragover` is refused
  addEventListener('dragover', accept)
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) overlay.hidden = true
  })
  addEventListener('drop', (event) => {
    event.preventDefault()
    overlay.hidden = true
    if (limits && event.dataTransfer.types.includes('Files')) addShown(dropped(event.dataTransfer))
  })
}
