// Calls of the server. URLs are relative to the page, which a proxy may serve below a path.

const BASE = new URL('.', document.baseURI)
const WINDOW = 900_000 // longest milliseconds of a rate limit
const KEPT = 'uploader-token'

export const address = BASE.href.replace(/\/$/, '')

export const url = (path) => new URL(path, BASE)

export const token = () => sessionStorage.getItem(KEPT) ?? ''

export const setToken = (text) => sessionStorage.setItem(KEPT, text)

export const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {})

// Milliseconds between two calls so that half of what the rate limit leaves remains for uploads; 0 without a limit.
export let spacing = 0

function measure(headers) {
  const [remaining, reset] = ['Remaining', 'Reset'].map((name) => Number(headers.get(`X-RateLimit-${name}`)))
  const left = Math.min(Math.max(reset * 1000 - Date.now(), 0), WINDOW)
  spacing = headers.has('X-RateLimit-Reset') ? left / Math.max(remaining / 2, 1) : 0
}

const PROBED = 1000 // milliseconds between two calls while the server does not answer

// When the server stopped answering (milliseconds since the epoch); 0 while it answers.
export let lostSince = 0
let probing

// Wait until the server answers, and return whether it did not at first.
export const back = () => (probing ??= probe().finally(() => (probing = undefined)))

async function probe() {
  for (let wasLost = false; ; wasLost = true) {
    await call('health').catch(() => {})
    if (!lostSince) return wasLost
    await sleep(PROBED)
  }
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

// Statuses of a proxy whose server does not answer.
const GATEWAY = new Set([502, 503, 504])

// An answer that is no success; `wait` are the seconds of its Retry-After.
export class Refusal extends Error {
  constructor(status, body, wait) {
    super(body.message ?? `the server answered ${status}`)
    this.status = status
    this.wait = wait
  }
}

// 128 random bits in hex. `crypto.randomUUID` and `crypto.subtle` do not exist over plain http.
export function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

// What a request needs to write to a session that was created with a secret.
export const secretHeader = (secret) => (secret ? { 'X-Session-Secret': secret } : {})

export async function call(path, json, own = {}) {
  const sent = { headers: { ...authorization(), ...own }, cache: 'no-store', signal: AbortSignal.timeout(10_000) }
  if (json !== undefined) {
    sent.method = 'POST'
    sent.headers['Content-Type'] = 'application/json'
    sent.body = JSON.stringify(json)
  }
  const answer = await fetch(url(path), sent).catch((error) => {
    lostSince ||= Date.now()
    throw error
  })
  lostSince = GATEWAY.has(answer.status) ? lostSince || Date.now() : 0
  if (path.startsWith('api/')) measure(answer.headers)
  const body = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Refusal(answer.status, body, Number(answer.headers.get('Retry-After')) || 0)
  return body
}
