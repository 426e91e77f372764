// The files of a session, of which only the visible rows are in the document.

import { base, duration, part, rate, size } from './format.js'
import { $, bar, fill, text } from './nodes.js'
import { url } from './server.js'

const HEIGHT = 52 // pixels of a row, also in page.css
const BEYOND = 10 // rows above and below the visible ones
const MARKS = { uploading: '↑', completed: '✓', failed: '✗', cancelled: '–', waiting: '·' }
const WORDS = { completed: 'completed', failed: 'failed', cancelled: 'cancelled', waiting: 'queued' }

const list = $('#rows')
let files = []
let how

// Show files of the model, with `own` where this page sends them. `linked`: whether stored ones can be opened, `moving`:
// whether the server answers; `actions`: the functions `cancel` and `retry` of a file.
export function draw(shown, options) {
  files = shown
  how = options
  list.style.height = `${files.length * HEIGHT}px`
  drawVisible()
}

// The same before and after the server knows a file of this page.
const key = (file) => (file.own ? file.path : file.id)

function drawVisible() {
  const above = -list.getBoundingClientRect().top
  const first = Math.max(0, Math.floor(above / HEIGHT) - BEYOND)
  const last = Math.ceil((above + innerHeight) / HEIGHT) + BEYOND
  const focused = document.activeElement?.closest('#rows li')?.dataset.id
  const items = []
  files.forEach((file, index) => {
    if ((index >= first && index < last) || key(file) === focused) items.push({ file, index, id: key(file) })
  })
  fill(list, items, '#file-row', update)
}

function update(row, { file, index }) {
  const name = base(file.path)
  row.style.top = `${index * HEIGHT}px`
  row.setAttribute('aria-setsize', files.length)
  row.setAttribute('aria-posinset', index + 1)
  row.dataset.status = file.status
  text(row, '.mark', MARKS[file.status])
  text(row, '.directory', file.path.slice(0, -name.length || undefined))
  const link = $('.name', row)
  if (link.textContent !== name) link.textContent = name
  if (how.linked && file.link) link.href = url(file.link.slice(1)).href
  else link.removeAttribute('href')
  $('.path', row).title = file.path
  bar(row, file.percent, `${file.path}: ${WORDS[file.status] ?? 'running'}`, file.status)
  const words = details(file)
  text(row, '.details', words)
  $('.details', row).title = file.error ?? ''
  button(row, '.stop', file.own && ['uploading', 'waiting'].includes(file.status), file, 'cancel')
  button(row, '.retry', file.own && ['failed', 'cancelled'].includes(file.status), file, 'retry')
}

function button(row, selector, visible, file, action) {
  const node = $(selector, row)
  node.hidden = !visible
  node.setAttribute('aria-label', `${node.dataset.word} ${file.path}`)
  node.onclick = () => how.actions[action](file)
}

function details(file) {
  if (file.status === 'failed') return file.error || 'failed'
  const known = Number.isFinite(file.size)
  if (file.status === 'waiting' && file.received) {
    return `${file.percent} % · ${part(file.received, file.size)} · ${file.own ? 'paused' : 'interrupted'}`
  }
  if (file.status !== 'uploading') return [known && size(file.size), WORDS[file.status]].filter(Boolean).join(' · ')
  const speed = how.moving ? file.speed : 0
  const left = known && speed > 0 ? (file.size - file.received) / speed : 0
  return [
    `${file.percent} %`,
    known && file.size > 0 && part(file.received, file.size),
    left > 0 && `${duration(left)} left`,
    speed > 0 && rate(speed),
  ]
    .filter(Boolean)
    .join(' · ')
}

addEventListener('scroll', drawVisible, { passive: true })
addEventListener('resize', drawVisible)
