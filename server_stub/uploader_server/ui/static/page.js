// The page: polls the server's activity, follows open sessions over Socket.IO, and draws both.

import { address, call, setToken, spacing, token } from './server.js'
import { Live } from './live.js'
import * as model from './model.js'
import * as plot from './plot.js'
import * as uploads from './upload.js'
import * as view from './view.js'

const { $ } = view
const BUSY = 1000 // milliseconds between two polls while something happens
const IDLE = 2000
const FRAME = 100
const FOLLOWED = 20 // open sessions that are followed over Socket.IO; the list has the others
const ID = /^[0-9a-f-]{36}$/

let analyses = []
let received = 0
let timer = 0
let polling = false
let soon = false // poll again after the running poll
let drawing = 0
let nextFetch = 0
let channel = 'connecting'

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

function selected() {
  return chosen() ? model.session(chosen()) : model.listed?.[0]
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
    view.drawSessions(model.listed, one?.id)
    view.drawSession(one)
    view.drawAnalyses(analyses)
    view.drawChannel(channel)
    $('#cancel').hidden = !(one && uploads.runs(one.id))
  }, FRAME)
}

async function poll() {
  if (polling) {
    soon = true
    return
  }
  clearTimeout(timer)
  polling = true
  let pause = IDLE
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
  const activity = await call('api/activity')
  model.applyList(activity.sessions, chosen())
  const busy = activity.receivedBytes !== received || activity.analyses.some((one) => one.status === 'running')
  received = activity.receivedBytes
  analyses = activity.analyses.slice(0, 5)
  plot.add(received)
  live.start()
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
    model.applyProgress(await call(`api/upload/progress/${one.id}`))
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
  document.body.dataset.view = chosen() ? 'session' : 'list'
  $('.back').focus() // on a narrow screen: the list with the focus is hidden now
  draw()
  poll()
}

async function copy(event) {
  const command = `uploader watch ${selected().id} --server ${address}`
  try {
    await navigator.clipboard.writeText(command)
    event.target.textContent = 'Copied'
    setTimeout(() => (event.target.textContent = 'Copy watch command'), 2000)
  } catch {
    view.notice('copy', command) // not a secure context, or not allowed
  }
}

$('#address').textContent = address
$('#try').textContent = `uploader upload FILE --server ${address}`
$('#copy').addEventListener('click', copy)
$('#cancel').addEventListener('click', () => uploads.cancel(selected().id))
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
