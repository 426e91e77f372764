// The Socket.IO connection: joins the rooms of sessions, also after each reconnection.

import { io } from './vendor/socket.io-client-4.8.4/socket.io.esm.min.js'
import { token, url } from './server.js'

export class Live {
  #rooms = new Set()

  constructor(onEvent, onChange) {
    this.socket = io(url('.').origin, {
      path: url('socket.io/').pathname,
      auth: (send) => send({ token: token() }),
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      timeout: 5000,
      reconnectionDelayMax: 10_000,
      autoConnect: false,
    })
    this.socket.on('upload-progress', onEvent)
    this.socket.on('connect', () => {
      for (const id of this.#rooms) this.socket.emit('join-session', id)
      onChange()
    })
    this.socket.on('disconnect', onChange)
    this.socket.on('connect_error', onChange)
  }

  get connected() {
    return this.socket.connected
  }

  // Connect, unless it is connected or trying to; with `now` without waiting for its next attempt.
  start(now) {
    if (now && !this.connected) this.socket.disconnect()
    if (!this.socket.active) this.socket.connect()
  }

  follow(ids) {
    const wanted = new Set(ids)
    for (const id of this.#rooms.difference(wanted)) this.#send('leave-session', id)
    for (const id of wanted.difference(this.#rooms)) this.#send('join-session', id)
    this.#rooms = wanted
  }

  #send(name, id) {
    if (this.connected) this.socket.emit(name, id)
  }
}
