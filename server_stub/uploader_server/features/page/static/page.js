// The page: polls the server's activity, follows open sessions over Socket.IO, and draws both.

import { address, call, lostSince, setToken, spacing, token } from './server.js'
import { Live } from './live.js'
import * as model from './model.js'
import { $, copy } from './nodes.js'
import * as plot from './plot.js'
import * as uploads from './upload.js'
import * as view from './view.js'

const BUSY = 1000 // milliseconds between two polls while something happens, or the server does not answer
const IDLE = 2000
const FRAME = 100
const FOLLOWED = 20 // open sessions that are followed over Socket.IO; the list has the others
const ID = /^[0-9a-f-]{36}$/
const AGAIN = new Set(['failed', 'cancelled']) // states of files that may be sent again
const OURS = new Set(['failed', 'cancelled', 'waiting']) // states that this page knows before the server does

let analyses = []
let received = 0
let timer = 0
let polling = false
let soon = false // poll again after the running poll
let drawing = 0
let nextFetch = 0
let channel = 'connecting'
let read = '' // the session that is shown without a chosen one
let newest // the newest session when the shown one was chosen

const live = new Live(onEvent, () => {
  const one = selected()
  if (one) one.fetched = -1 // events may have been lost
  setChannel(live.connected ? 'live' : 'polling')
  poll()
})

function chosen() {
  const id = location.hash.slice(1).toLowerCase()
  return ID.test(id) ? id : ''
}

// The chosen session, or the newest one; that stays when another one starts.
function selected() {
  if (chosen()) return model.session(chosen())
  const one = model.listed?.find(({ id }) => id === read) ?? model.listed?.[0]
  read = one?.id ?? ''
  return one
}

// A session that has started since the shown one was chosen.
function newer(one) {
  const [first] = model.listed ?? []
  newest ??= first?.id
  return first && first.id !== newest && first.id !== one.id ? first : undefined
}

const sends = (one) => uploads.isOpen(one.id) && !model.ended(one)

// Whether the user has to choose the files of a session again: no tab sends them.
const isInterrupted = (one) => uploads.filesToChoose(one.id).length > 0 && model.quiet(one) && !lostSince

// What this page knows of the status of a session beside the server's.
function status(one) {
  if (isInterrupted(one)) return 'interrupted'
  return sends(one) && (lostSince || uploads.isPaused(one.id)) ? 'paused' : one.status
}

function onEvent(event) {
  const one = model.applyEvent(event)
  if (model.ended(one)) view.speak(`Session ${one.status}: ${one.completed} of ${one.total} files`)
  draw()
}

function setChannel(state) {
  channel = state
  draw()
}

function draw() {
  drawing ||= setTimeout(() => {
    drawing = 0
    const one = selected()
    for (const each of [one, ...(model.listed ?? [])]) {
      if (each) each.name ||= uploads.entries(each.id)[0]?.path ?? '' // the server knows no file of it yet
    }
    document.body.toggleAttribute('data-empty', !one && model.listed?.length === 0)
    const files = one ? filesOf(one) : []
    const lost = lostSince ? (Date.now() - lostSince) / 1000 : 0
    view.drawSessions(model.listed, { selected: one?.id, status, cancelled })
    if (one) {
      const own = sends(one)
      // Links can't carry the token.
      const how = { linked: !token(), lost, own, status: status(one), actions: { cancel, retry } }
      view.drawSession(one, files, { ...how, choose: uploads.filesToChoose(one.id), newer: newer(one) })
      $('#pause').hidden = !own
      $('#pause').textContent = uploads.isPaused(one.id) ? 'Resume' : 'Pause'
      $('#choose').hidden = !isInterrupted(one)
      $('#cancel').hidden = !own && !isInterrupted(one)
    }
    $('#session').hidden = !one
    view.drawAnalyses(analyses)
    view.drawChannel(lostSince ? 'offline' : channel)
    const again = files.filter(repeatable).length
    $('#retry').hidden = again < 2
    $('#retry').textContent = `Retry ${again} files`
    if (lostSince) setTimeout(draw, 1000)
  }, FRAME)
}

// The files of a session: those that the server reports, and those of this page that it does not know yet. Nothing of an
// interrupted session is running.
function filesOf(one) {
  const own = new Map(uploads.entries(one.id).map((entry) => [entry.path, entry]))
  const left = isInterrupted(one)
  const files = []
  for (const file of one.files.values()) {
    const entry = own.get(file.path)
    if (entry && file.status === 'uploading' && OURS.has(entry.state)) {
      entry.sent = file.received
      continue
    }
    own.delete(file.path)
    Object.assign(file, { own: entry, recorded: true })
    files.push(left && file.status === 'uploading' ? { ...file, status: 'waiting' } : file)
  }
  for (const entry of own.values()) {
    const { path, size, state: status, why: error, sent: received = 0 } = entry
    const percent = size ? Math.floor((100 * received) / size) : 0
    files.push({ id: path, own: entry, path, size, status, error, received, percent })
  }
  return files
}

// The number of files that this page cancelled: the server counts them as failed, once their session has ended.
function cancelled(one) {
  if (one.status !== 'partial') return 0
  return uploads.entries(one.id).filter((entry) => entry.state === 'cancelled').length
}

const repeatable = (file) => file.own && AGAIN.has(file.status)

const cancel = (file) => uploads.cancelFile(selected().id, file.own).then(draw)

const retry = (file) => sendAgain([file])

async function sendAgain(files) {
  const one = selected()
  const hasResult = (file) => file.recorded || model.ended(one)
  const entries = (list) => list.map((file) => file.own)
  const [waiting, ended] = [files.filter((file) => !hasResult(file)), files.filter(hasResult)].map(entries)
  await uploads.retry(one.id, waiting, ended).catch((error) => view.notice(one.id, `Not sent: ${error.message}`))
}

async function poll() {
  if (polling) {
    soon = true
    return
  }
  clearTimeout(timer)
  polling = true
  let pause = BUSY
  try {
    pause = await fetchAll()
  } catch (error) {
    if (error.status === 429) pause = 1000 * Math.max(error.wait, 1)
    if (error.status === 401) ask()
    else setChannel(error.status === 429 ? 'waiting' : 'offline')
  }
  polling = false
  if (soon && pause <= IDLE) pause = 0
  soon = false
  if (!document.hidden && !$('#ask').open) timer = setTimeout(poll, pause)
}

async function fetchAll() {
  const wasLost = channel === 'offline'
  const asked = performance.now()
  const activity = await call('api/activity')
  model.applyList(activity.sessions, { asked, open: uploads.interrupted(), keep: chosen() })
  const busy = activity.receivedBytes !== received || activity.analyses.some((one) => one.status === 'running')
  received = activity.receivedBytes
  analyses = activity.analyses.slice(0, 5)
  plot.add(received)
  live.start(wasLost)
  await uploads.offer()
  await fetchFiles(selected())
  const open = [...new Set([selected(), ...model.listed])].filter((one) => one && !model.ended(one))
  live.follow(open.slice(0, FOLLOWED).map((one) => one.id))
  setChannel(live.connected ? 'live' : channel === 'connecting' ? channel : 'polling')
  return Math.max(busy || open.length ? BUSY : IDLE, spacing)
}

// Get the files of a session where events do not suffice; at most a tenth of the time goes into large answers.
async function fetchFiles(one) {
  const polled = one && !live.connected && !model.ended(one)
  if (!one || !(polled || model.incomplete(one)) || performance.now() < nextFetch) return
  const began = performance.now()
  try {
    model.applyProgress(await call(`api/upload/progress/${one.id}`), began)
  } catch (error) {
    if (error.status !== 404) throw error
    model.applyUnknown(one.id)
  }
  nextFetch = performance.now() + 9 * (performance.now() - began)
}

function ask() {
  $('#wrong').hidden = !token()
  if (!$('#ask').open) $('#ask').showModal()
}

function onHash() {
  newest = model.listed?.[0]?.id
  read = ''
  document.body.dataset.view = chosen() ? 'session' : 'list'
  scrollTo(0, 0)
  $('.back').focus() // on a narrow screen: the list with the focus is hidden now
  draw()
  poll()
}

async function copyWatch(event) {
  const command = `uploader watch ${selected().id} --server ${address}`
  if (!(await copy(event.target, command))) view.notice('copy', command)
}

const command = `uploader upload FILE --server ${address}`
$('#address').textContent = address
$('#try').textContent = command
$('#copy').addEventListener('click', copyWatch)
$('#copy-try').addEventListener('click', async (event) => {
  if (!(await copy(event.target, command))) getSelection().selectAllChildren($('#try'))
})
$('#pause').addEventListener('click', () => {
  const { id } = selected()
  if (uploads.isPaused(id)) uploads.resume(id)
  else uploads.pause(id)
  draw()
})
$('#choose').addEventListener('click', () => uploads.choose(selected().id))
$('#cancel').addEventListener('click', () => {
  $('#sure').dataset.session = selected().id // another one may be shown before the answer
  view.drawQuestion(selected())
  $('#sure').returnValue = ''
  $('#sure').showModal()
})
$('#sure').addEventListener('close', () => {
  if ($('#sure').returnValue === 'cancel') uploads.cancel($('#sure').dataset.session).then(draw)
})
$('#retry').addEventListener('click', () => sendAgain(filesOf(selected()).filter(repeatable)))
$('#ask').addEventListener('cancel', (event) => event.preventDefault())
$('#ask').addEventListener('close', () => {
  setToken($('#token').value.trim())
  $('#token').value = ''
  poll()
})
addEventListener('hashchange', onHash)
document.addEventListener('visibilitychange', () => document.hidden || poll())
view.prepare(draw)
uploads.prepare((id) => (location.hash = id))
onHash()
