// The throughput of the last two minutes, from the server's count of received bytes.

import { rate } from './format.js'

const SECONDS = 120
const APART = 0.5 // least seconds between two samples
const AT_FIRST = 20 // seconds that the plot shows at the beginning
const svg = document.querySelector('#plot svg')
const samples = [] // { at, bytes }: seconds, bytes received until then

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
    return { from: before.at, to: sample.at, value: (sample.bytes - before.bytes) / (sample.at - before.at) }
  })
  const peak = Math.max(...rates.map((one) => one.value), 0)
  const current = rates.at(-1)?.value ?? 0
  const span = Math.min(SECONDS, Math.max(AT_FIRST, now - samples[0].at))
  const x = (at) => Math.max(0, 120 - ((now - at) / span) * 120).toFixed(2)
  const y = (value) => (39 - (peak ? value / peak : 0) * 37).toFixed(2)
  const line = rates.map((one, index) => `${index ? 'L' : 'M'}${x((one.from + one.to) / 2)} ${y(one.value)}`)
  if (rates.length) line.push(`L120 ${y(current)}`)
  svg.querySelector('.line').setAttribute('d', line.join(''))
  svg.querySelector('.area').setAttribute('d', rates.length ? `${line.join('')}V40H${x(rates[0].from)}Z` : '')
  document.querySelector('#rate').textContent = rate(current)
  document.querySelector('#peak').textContent = peak ? `peak ${rate(peak)}` : ''
  document.querySelector('#plot-text').textContent = `Throughput of the last two minutes: now ${rate(current)}, peak ${rate(peak)}`
}
