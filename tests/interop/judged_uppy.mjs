// One upload by Uppy and its plugin for tus: `judged_uppy.mjs URL FILE`
import { readFileSync } from 'node:fs'
import Uppy from '@uppy/core'
import Tus from '@uppy/tus'

const [endpoint, file] = process.argv.slice(2)
const uppy = new Uppy().use(Tus, { endpoint, retryDelays: [0, 200, 500] })
uppy.addFile({ name: 'judge.bin', data: readFileSync(file) })
const { failed } = await uppy.upload()
for (const { error } of failed) console.error(String(error))
process.exit(failed.length ? 1 : 0)
