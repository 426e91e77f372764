// The sessions and their files, from lists, progress answers and events of the server (docs/protocol.md).

const ENDED = new Set(['completed', 'partial', 'cancelled', 'unknown'])
const DONE = new Set(['completed', 'failed']) // files

export const sessions = new Map()

export let listed // newest first; undefined until the server has answered

export function session(id) {
  if (!sessions.has(id)) {
    sessions.set(id, {
      id,
      status: 'pending',
      percent: 0,
      completed: 0,
      failed: 0,
      total: 0,
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

function update(body) {
  const one = session(body.sessionId)
  if (!ended(one)) one.status = body.overallStatus
  one.completed = body.completedFiles
  one.failed = body.failedFiles
  one.total = body.totalFiles
  // The server counts failed files as done: 100 % is for a session whose files are all stored.
  const whole = one.status === 'completed' && !one.failed
  one.percent = whole ? 100 : Math.min(99, ended(one) ? stored(one) : body.totalProgress)
  if (ended(one)) for (const file of one.files.values()) file.status = final(file.status)
  return one
}

const stored = (one) => Math.floor((100 * one.completed) / (one.total || 1))

// The status of a file whose session has ended: nothing of it is running.
const final = (status) => (status === 'uploading' ? 'cancelled' : status)

function updateFile(one, file) {
  const known = one.files.get(file.id)
  if (known && DONE.has(known.status)) return
  const path = file.relativePath ?? file.originalName
  one.files.set(file.id, {
    id: file.id,
    path,
    percent: file.progress,
    status: ended(one) ? final(file.status) : file.status,
    speed: file.uploadSpeed ?? known?.speed ?? 0,
    error: file.error ?? '',
  })
  if (DONE.has(file.status)) one.endedFiles += 1
}

export function applyEvent(event) {
  const one = update(event)
  if (event.currentFile) updateFile(one, event.currentFile)
  return one
}

export function applyProgress(body) {
  const one = update(body)
  const there = new Set(body.files.map((file) => file.id))
  for (const [id, file] of one.files) {
    if (file.status === 'uploading' && !there.has(id)) one.files.delete(id) // its request broke off
  }
  for (const file of body.files) updateFile(one, file)
  one.fetched = one.completed + one.failed
}

export function applyList(list, keep) {
  const there = new Set(list.map((entry) => entry.sessionId))
  for (const id of sessions.keys()) if (!there.has(id) && id !== keep) sessions.delete(id)
  listed = list.map((entry) => {
    return Object.assign(update(entry), { category: entry.category, created: entry.createdAt })
  })
}

export function applyUnknown(id) {
  const one = session(id)
  one.status = 'unknown'
  one.fetched = one.completed + one.failed
}
