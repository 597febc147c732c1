// The check of a release: reads an entry of its own through the edge. In: a JSON document on standard input (Berth, docs/extending.md).
// Ends with 0 and {"milliseconds": ...}, or with 1 and a sentence.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { connect } from './database.js'

const ROUNDS = 5
const plan = JSON.parse(readFileSync(0, 'utf8'))
const url = new URL(plan.url)
const ends = Date.now() + plan.seconds * 1000
const [host, port] = plan.address ? plan.address.split(':') : [url.hostname, url.port]
const id = createHash('sha256').update(plan.secret).digest('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5')

class Wrong extends Error {}

function ask(path, method = 'GET', document = undefined) {
  const body = document === undefined ? undefined : JSON.stringify(document)
  const headers = { ...plan.headers, Host: url.host, ...(body ? { 'Content-Type': 'application/json' } : {}) }
  const options = { host, port: port || undefined, path, method, headers, servername: url.hostname, rejectUnauthorized: false }
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? https : http).request(options, async (answer) => {
      let text = ''
      for await (const part of answer) text += part
      const release = answer.headers['x-berth-release'] ?? 'none'
      if (plan.release && release !== plan.release) reject(new Wrong(`${path} was answered by release ${release}: ${answer.statusCode}`))
      else resolve({ status: answer.statusCode, text })
    })
    request.setTimeout(Math.max(1, ends - Date.now()), () => request.destroy(new Error('no answer in time')))
    request.on('error', (error) => reject(new Wrong(`${path} did not answer: ${error.message}`)))
    request.end(body)
  })
}

async function sign() {
  const pool = connect({ max: 1 })
  await pool.query(
    "INSERT INTO entries (id, name, message, hidden) VALUES ($1, 'Release check', 'Still there', true) ON CONFLICT (id) DO NOTHING", [id])
  await pool.end()
}

async function speed(path) {
  const times = []
  for (let round = 0; round < ROUNDS; round += 1) {
    const began = performance.now()
    await ask(path)
    times.push(performance.now() - began)
  }
  return Math.round(times.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)] * 10) / 10
}

async function check() {
  // In restored data it must be there already.
  if (!plan.restored) await sign()
  const { status, text } = await ask(`/api/entries/${id}`)
  if (status !== 200 || JSON.parse(text).message !== 'Still there') throw new Wrong(`/api/entries/${id} returned ${status}: ${text.slice(0, 80)}`)
  if (plan.restored) return {}
  const page = await ask('/')
  if (page.status !== 200 || !page.text.includes('Guest book')) throw new Wrong(`/ returned ${page.status}: ${page.text.slice(0, 80)}`)
  const empty = await ask('/api/entries', 'POST', {})
  if (empty.status !== 422) throw new Wrong(`/api/entries took an empty entry: ${empty.status}`)
  return { '/': await speed('/'), '/api/entries': await speed('/api/entries') }
}

try {
  console.log(JSON.stringify({ milliseconds: await check() }))
} catch (error) {
  if (!(error instanceof Wrong)) throw error
  console.log(error.message)
  process.exitCode = 1
}
