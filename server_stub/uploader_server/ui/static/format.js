// Numbers and times as text.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function size(bytes) {
  let unit = 0
  while (bytes >= 1023.5 && unit < UNITS.length - 1) {
    bytes /= 1024
    unit += 1
  }
  return `${unit && bytes < 99.95 ? bytes.toFixed(1) : Math.round(bytes)} ${UNITS[unit]}`
}

export const rate = (bytes) => `${size(bytes)}/s`

export const count = (number) => number.toLocaleString('en')

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? '' : 's'}`

// The time of a moment of today, else its date.
export function time(text) {
  const moment = new Date(text)
  const today = moment.toDateString() === new Date().toDateString()
  return today ? moment.toLocaleTimeString('en-GB') : moment.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })
}

// The beginning of an id is enough for people; commands get the whole one.
export const short = (id) => id.slice(0, 8)
