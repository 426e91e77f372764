// The sessions and their files, from lists, progress answers and events of the server (docs/protocol.md).

const ENDED = new Set(['completed', 'partial', 'cancelled', 'unknown'])
const DONE = new Set(['completed', 'failed']) // files
const WINDOW = 8 // seconds over which a speed is measured
const APART = 0.4 // least seconds between two samples
const QUIET = 3000 // milliseconds without progress after which a session is quiet

export const sessions = new Map()

export let listed // newest first; undefined until the server has answered

export function session(id) {
  if (!sessions.has(id)) {
    sessions.set(id, {
      id,
      status: 'pending',
      name: '', // path of its first file, or of another one
      percent: 0,
      received: 0, // bytes of stored and arriving files
      size: 0, // bytes of all files; 0: unknown
      completed: 0,
      failed: 0,
      total: 0,
      samples: [], // { at, bytes }: seconds, `received`
      heard: 0, // time of the last event (milliseconds, as all times here)
      moved: performance.now(), // time of the last progress
      files: new Map(),
      endedFiles: 0, // of `files`
      fetched: -1, // ended files at the last progress answer; -1: ask for one
    })
  }
  return sessions.get(id)
}

export const ended = (one) => ENDED.has(one.status)

// Whether the files of a session have to be fetched: packs have one event for many files.
export const incomplete = (one) =>
  one.fetched < 0 || (one.endedFiles < one.completed + one.failed && one.fetched !== one.completed + one.failed)

// Whether an open session had no progress for some seconds.
export const quiet = (one) => !ended(one) && performance.now() - one.moved > QUIET

// Update the numbers of a session. `asked` is when an answer was asked for: an event since then is newer.
function update(body, asked = Infinity) {
  const one = session(body.sessionId)
  if (asked < one.heard) return one
  if (one.received !== body.receivedBytes || one.completed + one.failed !== body.completedFiles + body.failedFiles) {
    if (quiet(one)) one.samples.length = 0 // the pause belongs to no rate
    one.moved = performance.now()
  }
  if (!ended(one)) one.status = body.overallStatus
  one.completed = body.completedFiles
  one.failed = body.failedFiles
  one.total = body.totalFiles
  one.received = body.receivedBytes
  one.size = body.totalBytes ?? 0
  one.percent = percent(one, body.totalProgress)
  if (ended(one)) for (const file of one.files.values()) file.status = final(file.status)
  else sample(one)
  return one
}

// The percentage of the bytes. Without a size it is the server's, which counts failed files as done.
function percent(one, reported) {
  if (one.status === 'completed' && !one.failed) return 100 // of a session whose files are all stored
  const files = ended(one) ? (100 * one.completed) / (one.total || 1) : reported
  return Math.min(99, Math.floor(one.size ? (100 * one.received) / one.size : files))
}

function sample(one) {
  const at = performance.now() / 1000
  const { samples } = one
  if (samples.length && one.received < samples.at(-1).bytes) samples.length = 0 // a request broke off
  if (samples.length && at - samples.at(-1).at < APART) return
  samples.push({ at, bytes: one.received })
  while (samples.length > 2 && samples[1].at < at - WINDOW) samples.shift()
}

// Bytes per second of a session in the last seconds.
export function speed(one) {
  const first = one.samples[0]
  const seconds = performance.now() / 1000 - first?.at
  return seconds >= 1 && !ended(one) && !quiet(one) ? (one.received - first.bytes) / seconds : 0
}

// The status of a file whose session has ended: nothing of it is running.
const final = (status) => (status === 'uploading' ? 'cancelled' : status)

function updateFile(one, file) {
  const known = one.files.get(file.id)
  if (known && DONE.has(known.status)) return
  const path = file.relativePath ?? file.originalName
  one.files.set(file.id, {
    id: file.id,
    path,
    status: ended(one) ? final(file.status) : file.status,
    percent: file.progress,
    received: file.receivedBytes ?? 0,
    size: file.fileSize,
    link: file.filePath ?? '',
    speed: file.uploadSpeed ?? known?.speed ?? 0,
    error: file.error ?? '',
  })
  if (DONE.has(file.status)) one.endedFiles += 1
}

export function applyEvent(event) {
  const one = update(event)
  one.heard = performance.now()
  if (event.currentFile) updateFile(one, event.currentFile)
  return one
}

export function applyProgress(body, asked) {
  const one = update(body, asked)
  const there = new Set(body.files.map((file) => file.id))
  for (const [id, file] of one.files) {
    if (file.status === 'uploading' && !there.has(id)) one.files.delete(id) // its request broke off
  }
  for (const file of body.files) updateFile(one, file)
  one.fetched = one.completed + one.failed
}

// Take the list of sessions. Those of `open`, which this browser can continue, are listed and those of `keep` are kept
// also where the server's list, which is limited, has them no more.
export function applyList(list, { asked, open, keep }) {
  const there = new Set(list.map((entry) => entry.sessionId))
  for (const id of sessions.keys()) if (!there.has(id) && !open.includes(id) && id !== keep) sessions.delete(id)
  listed = list.map((entry) => {
    const { category, createdAt: created, endedAt: finished } = entry
    const one = update(entry, asked)
    const name = one.name || entry.name || '' // a server that was restarted may not know the first file any more
    return Object.assign(one, { category, created, finished, name })
  })
  listed.push(...open.filter((id) => !there.has(id)).map(session))
}

export function applyUnknown(id) {
  const one = session(id)
  one.status = 'unknown'
  one.fetched = one.completed + one.failed
}
