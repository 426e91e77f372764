// Calls of the server. URLs are relative to the page, which a proxy may serve below a path.

const BASE = new URL('.', document.baseURI)
const KEPT = 'uploader-token'

export const address = BASE.href.replace(/\/$/, '')

export const url = (path) => new URL(path, BASE)

export const token = () => sessionStorage.getItem(KEPT) ?? ''

export const setToken = (text) => sessionStorage.setItem(KEPT, text)

export const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {})

// An answer that is no success; `wait` are the seconds of its Retry-After.
export class Refusal extends Error {
  constructor(status, body, wait) {
    super(body.message ?? `the server answered ${status}`)
    this.status = status
    this.wait = wait
  }
}

export async function call(path, json) {
  const sent = { headers: authorization(), cache: 'no-store', signal: AbortSignal.timeout(10_000) }
  if (json !== undefined) {
    sent.method = 'POST'
    sent.headers['Content-Type'] = 'application/json'
    sent.body = JSON.stringify(json)
  }
  const answer = await fetch(url(path), sent)
  const body = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Refusal(answer.status, body, Number(answer.headers.get('Retry-After')) || 0)
  return body
}
