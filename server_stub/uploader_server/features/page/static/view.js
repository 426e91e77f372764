// Draws the model.

import { base, count, duration, named, part, plural, rate, short, size, time } from './format.js'
import { ended, quiet, speed } from './model.js'
import { $, bar, fill, text } from './nodes.js'
import * as rows from './rows.js'

const WORDS = {
  pending: 'Waiting',
  uploading: 'Uploading',
  running: 'Running',
  completed: 'Completed',
  partial: 'Partial',
  paused: 'Paused',
  interrupted: 'Interrupted',
  cancelled: 'Cancelled',
  failed: 'Failed',
  unknown: 'Unknown',
}
const FILTERS = { all: 'All', uploading: 'Running', failed: 'Failed', completed: 'Done' }
const REASONS = 3 // shown of the failures of a session

const shown = { filter: 'all', session: '' }

function badge(root, selector, status) {
  text(root, selector, WORDS[status] ?? status)
  $(selector, root).dataset.status = status
}

const seconds = (one) => (Date.parse(one.finished) - Date.parse(one.created)) / 1000
const whole = (one) => one.status === 'completed' && !one.failed
const counts = (one) => (whole(one) ? '' : `${count(one.completed)} of `) + plural(one.total, 'file')

// The content of a session: its first file, and how many more.
function content(one) {
  const more = one.total > 1 ? ` and ${count(one.total - 1)} more` : ''
  return one.name ? base(one.name) + more : one.category ?? 'session'
}

// Draw the list of sessions. `status` and `cancelled` are functions of a session: its status as this page knows it, and
// how many of its failed files are cancelled ones.
export function drawSessions(list, { selected, status, cancelled }) {
  fill($('#sessions'), list ?? [], '#session-row', (row, one) => {
    const link = $('a', row)
    link.href = `#${one.id}`
    if (one.id === selected) link.setAttribute('aria-current', 'true')
    else link.removeAttribute('aria-current')
    text(row, '.name', content(one))
    text(row, 'time', one.created ? time(one.created) : '')
    badge(row, '.badge', status(one))
    bar(row, one.percent, `Progress of session ${short(one.id)}`, status(one))
    const failed = Math.max(0, one.failed - cancelled(one)) // the server may not have counted all
    const words = [counts(one), failed && `${count(failed)} failed`, one.received && size(one.received)]
    text(row, '.counts', words.filter(Boolean).join(' · '))
    text(row, '.id', short(one.id))
  })
  $('#sessions-section').hidden = !list?.length
}

// Draw a session and its `files`. `status` is that of the session as this page knows it, and `own` whether the page sends
// it; `actions` are those for its files. `choose` are the files that have to be chosen again, and `newer` is a session that
// has started since. `lost` are the seconds since when the server does not answer.
export function drawSession(one, files, { linked, lost, own, status, actions, choose, newer }) {
  if (shown.session !== one.id) Object.assign(shown, { session: one.id, filter: 'all' })
  const groups = { all: [], uploading: [], failed: [], cancelled: [], waiting: [], completed: [] }
  for (const file of files) groups[file.status]?.push(file)
  // The server counts files that this page cancelled as failed, once the session has ended.
  const cancelled = one.status === 'partial' ? groups.cancelled.length : 0
  const failed = one.failed - cancelled
  groups.completed.reverse()
  groups.all = [...groups.uploading, ...groups.failed, ...groups.cancelled, ...groups.waiting, ...groups.completed]
  text(document, '#title', content(one))
  text(document, '#started', one.created ? ` · ${time(one.created)}` : '')
  text(document, '#title-id', [one.category, short(one.id)].filter(Boolean).join(' · '))
  badge(document, '#status', status)
  const still = lost > 0 || quiet(one) || status === 'paused' // nothing arrives
  const [figure, more] = figures(one, still)
  text(document, '#figure', figure)
  text(document, '#more', more)
  $('#session').classList.toggle('still', still && !ended(one))
  bar($('.summary'), one.percent, 'Progress of the session', status)
  text(document, '#counted', details(one, groups, { still, failed, cancelled }))
  const words = waitsFor(one, { lost, own, status, choose })
  $('#paused').hidden = !words
  text(document, '#paused', words)
  $('#newer').hidden = !newer
  if (newer) {
    $('#newer a').href = `#${newer.id}`
    text($('#newer'), 'a', content(newer))
  }
  drawReasons(groups.failed)
  drawFilters(groups, { all: one.total, uploading: 0, failed, completed: one.completed })
  rows.draw(groups[shown.filter], { linked, moving: !still, actions })
  drawNote(one, groups)
}

// Say what has to happen before a session continues; nothing while it does.
function waitsFor(one, { lost, own, status, choose }) {
  if (ended(one)) return ''
  const since = `the server has been unreachable for ${duration(lost)}`
  if (lost && own) return `Paused, ${since}. The upload continues when it is back.`
  if (lost) return since[0].toUpperCase() + since.slice(1)
  if (status === 'interrupted') return `Choose ${named(choose)} again to continue this upload.`
  if (status !== 'paused' && quiet(one) && one.received && one.received !== one.size) return `No data has arrived for ${duration((performance.now() - one.moved) / 1000)}`
  return ''
}

// The large figure of a session, and what stands beside it.
function figures(one, still) {
  const took = one.finished ? ` in ${duration(seconds(one))}` : ''
  if (one.status === 'unknown') return ['–', '']
  if (whole(one)) return [`${plural(one.completed, 'file')}, ${size(one.received)}${took}`, '']
  if (ended(one)) return [counts(one), `${bytes(one)} stored${took}`]
  const now = speed(one)
  const left = one.size && now > 0 && !still ? (one.size - one.received) / now : 0
  return [`${one.percent} %`, [bytes(one), left && `${duration(left)} left`].filter(Boolean).join(' · ')]
}

const bytes = (one) => (one.size ? part(one.received, one.size) : size(one.received))

function details(one, groups, { still, failed, cancelled }) {
  const now = still ? 0 : speed(one)
  const average = one.finished && seconds(one) > 0 && one.received ? one.received / seconds(one) : 0
  return [
    !ended(one) && counts(one),
    failed && `${count(failed)} failed`,
    cancelled && `${count(cancelled)} cancelled`,
    !still && groups.uploading.length && `${count(groups.uploading.length)} running`,
    now > 0 && rate(now),
    average && `${rate(average)} on average`,
  ]
    .filter(Boolean)
    .join(' · ')
}

// Name each reason of failures once, with its number.
function drawReasons(failed) {
  const reasons = Map.groupBy(failed, (file) => file.error)
  reasons.delete('')
  const items = [...reasons].slice(0, REASONS).map(([reason, files]) => ({ id: reason, files: files.length }))
  if (reasons.size > REASONS) items.push({ id: `${plural(reasons.size - REASONS, 'other reason')}` })
  fill($('#reasons'), items, '#reason', (node, one) => {
    node.textContent = one.files > 1 ? `${count(one.files)} × ${one.id}` : one.id
  })
}

// Show the numbers of files: those that the server counted, or those that are known, if they are more.
function drawFilters(groups, counted) {
  for (const button of $('#filters').children) {
    const name = button.dataset.filter
    button.setAttribute('aria-pressed', name === shown.filter)
    text(button, 'span', count(Math.max(counted[name], groups[name].length)))
  }
}

function drawNote(one, groups) {
  const none = { all: ended(one) ? 'No files' : 'Waiting for the first file', failed: 'No failures' }
  const coming = one.total - Math.max(groups.all.length, one.completed + one.failed)
  let words = ''
  if (one.status === 'unknown') words = 'The server does not know this session'
  else if (!groups[shown.filter].length) words = none[shown.filter] ?? 'None'
  else if (coming > 0 && !ended(one) && shown.filter === 'all') words = `${plural(coming, 'file')} to come`
  text(document, '#note', words)
  $('#note').hidden = !words
}

export function drawAnalyses(list) {
  $('#analyses-section').hidden = !list.length
  const items = list.map((one) => ({ ...one, id: one.analysisId }))
  fill($('#analyses'), items, '#analysis-row', (row, one) => {
    const open = one.status === 'running' ? 'running' : one.id === items[0].id ? 'first' : ''
    if (row.dataset.open !== open) {
      row.dataset.open = open // the user may open and close it in between
      $('details', row).open = open !== ''
    }
    text(row, '.name', one.kind)
    text(row, '.id', short(one.id))
    badge(row, '.badge', one.status)
    bar(row, one.progress, 'Progress of the analysis', one.status)
    const at = one.stages.indexOf(one.stage)
    const stages = one.stages.map((name, index) => {
      const here = index === at && one.status !== 'completed'
      const state = index < at || (index === at && !here) ? 'completed' : here ? one.status : 'pending'
      return { id: name, state }
    })
    fill($('.stages', row), stages, '#stage', (step, stage) => {
      text(step, '.name', stage.id.replaceAll('-', ' '))
      text(step, '.unseen', WORDS[stage.state])
      step.dataset.status = stage.state
    })
    text(row, '.message', one.status === 'completed' ? '' : one.message)
  })
}

const CHANNELS = {
  connecting: ['Connecting', ''],
  live: ['Live', 'Progress arrives over Socket.IO'],
  polling: ['Polling', 'Socket.IO is not connected; the page asks the server every second'],
  offline: ['Offline', 'The server does not answer'],
  waiting: ['Waiting', 'The server limits the rate of calls'],
}

export function drawChannel(state) {
  const [word, why] = CHANNELS[state]
  text(document, '#channel', word)
  Object.assign($('#channel'), { title: why }).dataset.state = state
  document.body.toggleAttribute('data-offline', state === 'offline')
}

// Ask whether a session is to be cancelled.
export function drawQuestion(one) {
  const stored = one.completed ? ` What is stored (${plural(one.completed, 'file')}) will stay.` : ''
  text($('#sure'), 'p', `${content(one)}: files that have not arrived completely are removed.${stored}`)
}

// Tell screen readers.
export const speak = (words) => text(document, '#spoken', words)

// Show a message until `id` is cleared; `actions` are functions by the words of their buttons.
export function notice(id, words, actions = {}) {
  clearNotice(id)
  const node = $('#notice').content.firstElementChild.cloneNode(true)
  node.dataset.notice = id
  $('p', node).textContent = words
  for (const [label, action] of Object.entries({ ...actions, Hide: () => clearNotice(id) })) {
    const button = document.createElement('button')
    button.type = 'button'
    button.textContent = label
    button.addEventListener('click', action)
    $('.actions', node).append(button)
  }
  $('#notices').append(node)
}

export const clearNotice = (id) => $(`[data-notice="${id}"]`)?.remove()

// Build the filters, and call `redraw` after the user changed what is shown.
export function prepare(redraw) {
  for (const [name, word] of Object.entries(FILTERS)) {
    const button = document.createElement('button')
    button.type = 'button'
    button.dataset.filter = name
    button.append(`${word} `, document.createElement('span'))
    button.addEventListener('click', () => {
      shown.filter = name
      redraw()
    })
    $('#filters').append(button)
  }
}
