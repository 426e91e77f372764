// The throughput of the server in the header, from its count of received bytes; hidden while nothing arrives.

import { rate } from './format.js'

const SECONDS = 60
const AT_FIRST = 15 // seconds that the plot shows at the beginning
const QUIET = 3 // seconds without data after which it is hidden
const LEAST = 4096 // bytes per second; the calls of pages are less
const APART = 0.5 // least seconds between two samples
const node = document.querySelector('#traffic')
const samples = [] // { at, bytes }: seconds, bytes received until then
let active = -QUIET // when data arrived last

export function add(bytes) {
  const at = performance.now() / 1000
  if (samples.length && at - samples.at(-1).at < APART) return
  if (samples.length && bytes < samples.at(-1).bytes) samples.length = 0 // the server was restarted
  samples.push({ at, bytes })
  while (samples[0].at < at - SECONDS - 5) samples.shift()
  draw(at)
}

function draw(now) {
  const rates = samples.slice(1).map((sample, index) => {
    const before = samples[index]
    return { at: sample.at, value: (sample.bytes - before.bytes) / (sample.at - before.at) }
  })
  const current = rates.at(-1)?.value ?? 0
  if (current > LEAST) active = now
  node.hidden = now - active >= QUIET
  const peak = Math.max(...rates.map((one) => one.value), 1)
  const span = Math.min(SECONDS, Math.max(AT_FIRST, now - samples[0].at))
  const points = rates.map(({ at, value }) => {
    return `${Math.max(0, 80 - ((now - at) / span) * 80).toFixed(1)} ${(19 - (value / peak) * 18).toFixed(1)}`
  })
  node.querySelector('path').setAttribute('d', points.length ? `M${points.join('L')}` : '')
  node.querySelector('.rate').textContent = rate(current)
  node.title = `Throughput of the server: now ${rate(current)}, peak of the last minute ${rate(peak)}`
}
