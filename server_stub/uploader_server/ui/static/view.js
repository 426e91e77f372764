// Draws the model. Rows are reused; only the first of many files are in the document.

import { count, plural, rate, short, time } from './format.js'
import { ended } from './model.js'

const STEP = 200 // files added by "Show more"
const WORDS = {
  pending: 'Waiting',
  uploading: 'Uploading',
  running: 'Running',
  completed: 'Completed',
  partial: 'Partial',
  cancelled: 'Cancelled',
  failed: 'Failed',
  unknown: 'Unknown',
}
const FILTERS = { all: 'All', uploading: 'Running', failed: 'Failed', completed: 'Done' }
const MARKS = { uploading: '↑', completed: '✓', failed: '✗', cancelled: '–' }

export const $ = (selector, root = document) => root.querySelector(selector)

const shown = { filter: 'all', most: STEP, session: '' }

// Make the children of `parent` those of `items`, by their ids.
function fill(parent, items, template, update) {
  const rows = new Map([...parent.children].map((row) => [row.dataset.id, row]))
  let next = parent.firstElementChild
  for (const item of items) {
    let row = rows.get(item.id)
    if (!row) {
      row = $(template).content.firstElementChild.cloneNode(true)
      row.dataset.id = item.id
    }
    rows.delete(item.id)
    if (row === next) next = next.nextElementSibling
    else parent.insertBefore(row, next)
    update(row, item)
  }
  for (const row of rows.values()) row.remove()
}

function text(root, selector, words) {
  const node = $(selector, root)
  if (node.textContent !== words) node.textContent = words
}

function badge(root, selector, status) {
  text(root, selector, WORDS[status] ?? status)
  $(selector, root).dataset.status = status
}

function bar(root, percent, label, status) {
  const node = $('progress', root)
  node.value = percent
  node.dataset.status = status
  node.setAttribute('aria-label', label)
}

export function drawSessions(list, selected) {
  fill($('#sessions'), list ?? [], '#session-row', (row, one) => {
    const link = $('a', row)
    link.href = `#${one.id}`
    if (one.id === selected) link.setAttribute('aria-current', 'true')
    else link.removeAttribute('aria-current')
    text(row, '.name', one.category)
    text(row, '.id', short(one.id))
    badge(row, '.badge', one.status)
    bar(row, one.percent, `Progress of session ${short(one.id)}`, one.status)
    text(row, '.counts', counts(one))
    text(row, 'time', one.created ? time(one.created) : '')
  })
  $('#sessions').hidden = !list?.length
  $('#no-sessions').hidden = list?.length !== 0
}

const failures = (one) => (one.failed ? ` · ${count(one.failed)} failed` : '')
const counts = (one) => `${count(one.completed)} of ${plural(one.total, 'file')}${failures(one)}`

export function drawSession(one) {
  $('#session').hidden = !one
  if (!one) return
  if (shown.session !== one.id) Object.assign(shown, { session: one.id, filter: 'all', most: STEP })
  const files = { all: [], uploading: [], failed: [], cancelled: [], completed: [] }
  for (const file of one.files.values()) files[file.status]?.push(file)
  files.completed.reverse()
  files.all = [...files.uploading, ...files.failed, ...files.cancelled, ...files.completed]
  text(document, '#title', one.category ?? 'session')
  text(document, '#title-id', short(one.id))
  badge(document, '#status', one.status)
  text(document, '#percent', `${one.percent} %`)
  text(document, '#counted', counts(one))
  bar($('.summary'), one.percent, 'Progress of the session', one.status)
  const speed = files.uploading.reduce((sum, file) => sum + file.speed, 0)
  const details = [
    one.created && `started ${time(one.created)}`,
    files.uploading.length && `${count(files.uploading.length)} running`,
    speed && !ended(one) && rate(speed),
  ]
  text(document, '#details', details.filter(Boolean).join(' · ') || ' ')
  drawFilters(one, files)
  drawFiles(one, files[shown.filter])
}

function drawFilters(one, files) {
  const numbers = { all: one.files.size, uploading: files.uploading.length, failed: one.failed, completed: one.completed }
  for (const button of $('#filters').children) {
    const name = button.dataset.filter
    button.setAttribute('aria-pressed', name === shown.filter)
    text(button, 'span', count(numbers[name]))
  }
}

function drawFiles(one, files) {
  fill($('#rows'), files.slice(0, shown.most), '#file-row', (row, file) => {
    const cut = file.path.lastIndexOf('/') + 1
    row.dataset.status = file.status
    text(row, '.mark', MARKS[file.status])
    text(row, '.directory', file.path.slice(0, cut))
    text(row, '.name', file.path.slice(cut))
    $('.path', row).title = file.path
    bar(row, file.percent, `${file.path}: ${WORDS[file.status]}`, file.status)
    text(row, '.speed', file.status === 'uploading' && file.speed ? rate(file.speed) : '')
    text(row, '.percent', file.status === 'uploading' ? `${file.percent} %` : WORDS[file.status].toLowerCase())
    text(row, '.error', file.error)
  })
  const left = files.length - shown.most
  $('#more').hidden = left <= 0
  text(document, '#more', `Show ${count(Math.min(left, STEP))} more of ${count(files.length)}`)
  $('#no-files').hidden = files.length > 0
  const none = { all: ended(one) ? 'No files' : 'Waiting for the first file', failed: 'No failures' }
  text(document, '#no-files', one.status === 'unknown' ? 'The server does not know this session' : none[shown.filter] ?? 'None')
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
}

// Tell screen readers.
export const speak = (words) => text(document, '#spoken', words)

// Show a message until `id` is cleared; `actions` are functions by the words of their buttons.
export function notice(id, words, actions = {}) {
  clearNotice(id)
  const node = $('#notice').content.firstElementChild.cloneNode(true)
  node.dataset.notice = id
  $('p', node).textContent = words
  for (const [label, action] of Object.entries({ ...actions, Dismiss: () => clearNotice(id) })) {
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
      Object.assign(shown, { filter: name, most: STEP })
      redraw()
    })
    $('#filters').append(button)
  }
  $('#more').addEventListener('click', () => {
    shown.most += STEP
    redraw()
  })
}
