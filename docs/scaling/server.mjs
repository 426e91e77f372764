import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { createClient } from '@redis/client'
import { FileStore } from '@tus/file-store'
import { S3Store } from '@tus/s3-store'
import { RedisKvStore, Server } from '@tus/server'

const { REDIS, DIRECTORY, BUCKET, REGION = 'us-east-1', HOST, PORT } = process.env
const redis = createClient({ url: REDIS })
redis.on('error', (error) => console.error(`Redis: ${error.message}`)) // the client connects again
await redis.connect()

const LOCKED = 5_000 // milliseconds that the lock of a killed process lasts
const OWN = 'if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call(ARGV[2], KEYS[1], ARGV[3]) end'

const held = new Map() // the locks of this process

class RedisLock {
  constructor(id) {
    this.id = id
    this.key = `lock:${id}`
    this.token = randomBytes(8).toString('hex')
  }
  async lock(signal, release) {
    const end = Date.now() + 30_000
    while (!(await redis.set(this.key, this.token, { NX: true, PX: LOCKED }))) {
      if (signal.aborted || Date.now() > end) throw { status_code: 423, body: 'the upload is locked\n' }
      await redis.set(`${this.key}:wanted`, '1', { PX: 2 * LOCKED })
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    await redis.del(`${this.key}:wanted`)
    held.set(this.id, this)
    this.timer = setInterval(() => this.renew(release).catch(() => {}), LOCKED / 5)
  }
  prolong() { // returns whether it is still this one's
    return redis.eval(OWN, { keys: [this.key], arguments: [this.token, 'pexpire', `${LOCKED}`] })
  }
  async renew(release) {
    await this.prolong()
    if (await redis.exists(`${this.key}:wanted`)) await release()
  }
  async unlock() {
    held.delete(this.id)
    clearInterval(this.timer)
    await redis.eval(OWN, { keys: [this.key], arguments: [this.token, 'pexpire', '0'] })
  }
}

async function* without(count, stream) { // what follows the first `count` bytes
  for await (const bytes of stream) {
    if (bytes.length > count) yield bytes.subarray(count)
    count -= Math.min(count, bytes.length)
  }
}

const repeatable = (Store) => class extends Store {
  async create(upload) { // a creation is repeated when its answer was lost: it must find the first one
    return this.getUpload(upload.id).catch((error) => {
      if (error.status_code !== 404) throw error
      return super.create(upload)
    })
  }
  async write(stream, id, offset) {
    if (offset) return super.write(stream, id, offset)
    const { offset: there, size } = await this.getUpload(id) // a repeated creation has bytes that are there
    const rest = there ? Readable.from(without(there, stream)) : stream
    if (there !== size) return super.write(rest, id, there)
    for await (const _ of rest);
    return size
  }
}

class InOrder { // lets one part of an upload be stored at a time: a kill leaves no gap
  last = Promise.resolve()
  async acquire() {
    const before = this.last
    let release
    this.last = new Promise((resolve) => { release = async () => resolve() })
    await before
    return { release }
  }
}

class SafeS3Store extends S3Store {
  async getUpload(id) { // a killed process may not have joined the parts
    const upload = await super.getUpload(id)
    if (upload.offset === upload.size) await this.join(id)
    return upload
  }
  async join(id) {
    try {
      await this.finishMultipartUpload(await this.getMetadata(id), await this.retrieveParts(id))
    } catch (error) {
      if (error.name !== 'NoSuchUpload') throw error // they are joined
    }
  }
  write(stream, id, offset) {
    return super.write.call(Object.create(this, { partUploadSemaphore: { value: new InOrder() } }), stream, id, offset)
  }
  async check(id) { // a process that stood still may have lost its lock, and another one writes
    if (!(await held.get(id)?.prolong())) throw { status_code: 423, body: 'the lock is lost\n' }
  }
  async uploadPart(metadata, ...part) {
    await this.check(metadata.file.id)
    return super.uploadPart(metadata, ...part)
  }
  async uploadIncompletePart(id, ...part) {
    await this.check(id)
    return super.uploadIncompletePart(id, ...part)
  }
  async remove(id) { // S3Store removes no file that is stored
    await super.remove(id).catch((error) => { if (error.status_code !== 404) throw error })
    const Objects = [id, `${id}.info`, `${id}.part`].map((Key) => ({ Key }))
    await this.client.deleteObjects({ Bucket: this.bucket, Delete: { Objects } })
    await this.clearCache(id)
  }
}

const uploads = new RedisKvStore(redis, 'upload:')
const s3ClientConfig = { bucket: BUCKET, region: REGION, forcePathStyle: true }
const store = BUCKET
  ? new (repeatable(SafeS3Store))({ s3ClientConfig, cache: uploads })
  : new (repeatable(FileStore))({ directory: DIRECTORY, configstore: uploads })
const server = new Server({
  path: '/files',
  relativeLocation: true,
  datastore: store,
  locker: { newLock: (id) => new RedisLock(id) },
  namingFunction: (_request, metadata) =>
    /^\w{32,64}$/.test(metadata?.uploadKey ?? '') ? metadata.uploadKey : randomBytes(16).toString('hex'),
})
const http = server.listen({ host: HOST, port: Number(PORT) })

let stopping = false
http.prependListener('request', (_request, response) => {
  if (stopping) response.setHeader('Connection', 'close')
})
process.once('SIGTERM', () => { // no new connections; what is under way ends first
  stopping = true
  http.close(() => process.exit(0))
  setTimeout(() => process.exit(0), 60_000)
})
