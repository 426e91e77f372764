// Numbers and times as text.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

function scaled(bytes) {
  let unit = 0
  while (bytes >= 1023.5 && unit < UNITS.length - 1) {
    bytes /= 1024
    unit += 1
  }
  return [unit && bytes < 99.95 ? bytes.toFixed(1) : String(Math.round(bytes)), UNITS[unit]]
}

export const size = (bytes) => scaled(bytes).join(' ')

// A part of a size: "7.4 of 16.0 MiB", or with both units where they differ.
export function part(bytes, whole) {
  const [number, unit] = scaled(bytes)
  const [total, largest] = scaled(whole)
  return `${number}${unit === largest || !bytes ? '' : ` ${unit}`} of ${total} ${largest}`
}

export const rate = (bytes) => `${size(bytes)}/s`

export const count = (number) => number.toLocaleString('en')

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? '' : 's'}`

// The time of a moment of today, else its date.
export function time(text) {
  const moment = new Date(text)
  const today = moment.toDateString() === new Date().toDateString()
  return today
    ? moment.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })
    : moment.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })
}

// A number of seconds: "18 s", "3 min 5 s", "2 h 10 min".
export function duration(seconds) {
  if (seconds < 9.95) return `${seconds < 0.95 ? Math.max(0.1, seconds).toFixed(1) : Math.round(seconds)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const minutes = Math.floor(whole / 60)
  if (minutes < 60) return `${minutes} min${minutes < 10 && whole % 60 ? ` ${whole % 60} s` : ''}`
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ''}`
}

// The beginning of an id is enough for people; commands get the whole one.
export const short = (id) => id.slice(0, 8)

export const base = (path) => path.slice(path.lastIndexOf('/') + 1)

const SHOWN = 3 // names in a message

// The names of files, the first ones of many.
export function named(files) {
  const names = files.slice(0, SHOWN).map((file) => file.path)
  return files.length > SHOWN ? `${names.join(', ')} and ${plural(files.length - SHOWN, 'other file')}` : names.join(', ')
}
