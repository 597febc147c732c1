// The guest book: its page, and its entries as JSON.
import http from 'node:http'
import { connect } from './database.js'
import { count, render } from './metrics.js'
import { page } from './pages.js'
import { files } from './static.js'

const BODY_BYTES = 16 * 1024
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const pool = connect()
// A connection that the database has closed is replaced by the next query.
pool.on('error', (error) => console.error(`database: ${error.message}`))

class Refusal extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

async function read(request) {
  if (!/^application\/json\b/.test(request.headers['content-type'] ?? '')) throw new Refusal(415, 'Send application/json.')
  const parts = []
  let size = 0
  for await (const part of request) {
    size += part.length
    if (size > BODY_BYTES) throw new Refusal(413, `At most ${BODY_BYTES} bytes.`)
    parts.push(part)
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString())
  } catch {
    throw new Refusal(400, 'This is not JSON.')
  }
}

function text(document, key, longest) {
  const value = document?.[key]
  const found = typeof value === 'string' ? value.trim() : ''
  if (!found || found.length > longest || found.includes('\0')) throw new Refusal(422, `${key}: 1 to ${longest} characters.`)
  return found
}

const FIELDS = 'id, name, message, created_at, words'
const newest = () => pool.query(`SELECT ${FIELDS} FROM entries WHERE NOT hidden ORDER BY created_at DESC LIMIT 50`)
const json = (status, document) => [status, 'application/json; charset=utf-8', JSON.stringify(document)]

async function add(request) {
  const document = await read(request)
  const values = [text(document, 'name', 80), text(document, 'message', 2000)]
  const added = await pool.query(`INSERT INTO entries (name, message) VALUES ($1, $2) RETURNING ${FIELDS}`, values)
  return json(201, added.rows[0])
}

async function one(id) {
  const found = await pool.query(`SELECT ${FIELDS} FROM entries WHERE id = $1`, [id])
  if (!found.rowCount) throw new Refusal(404, 'There is no such entry.')
  return json(200, found.rows[0])
}

async function metrics() {
  const asked = "SELECT count(*) AS entries, coalesce(extract(epoch FROM now() - min(created_at)), 0) AS seconds FROM entries WHERE words IS NULL"
  return [200, 'text/plain; version=0.0.4', render((await pool.query(asked)).rows[0])]
}

async function healthz() {
  await pool.query('SELECT 1')
  return [200, 'text/plain', 'ok\n']
}

// What is asked -> the name it is counted under, and its answer.
function routed(method, path) {
  const reads = method === 'GET' || method === 'HEAD'
  if (path === '/api/entries' && reads) return [path, async () => json(200, (await newest()).rows)]
  if (path === '/api/entries' && method === 'POST') return [path, add]
  if (path === '/') return [path, async () => [200, 'text/html; charset=utf-8', page((await newest()).rows)]]
  if (path === '/healthz') return [path, healthz]
  if (path === '/metrics') return [path, metrics]
  if (Object.hasOwn(files, path)) return [path, async () => [200, ...files[path]]]
  const [, id] = path.match(/^\/api\/entries\/([^/]+)$/) ?? []
  if (id && reads && UUID.test(id)) return ['/api/entries/:id', () => one(id)]
  return ['other', async () => { throw new Refusal(path === '/api/entries' ? 405 : 404, 'There is nothing here.') }]
}

const server = http.createServer(async (request, response) => {
  const began = process.hrtime.bigint()
  const path = request.url.split('?')[0]
  const [route, work] = routed(request.method, path)
  let answer
  try {
    answer = await work(request)
  } catch (error) {
    // The client has gone in mid-body.
    if (error.code === 'ECONNRESET') answer = json(499, {})
    else if (error instanceof Refusal) answer = json(error.status, { error: error.message })
    else {
      console.error(`${request.method} ${path}: ${error.stack}`)
      answer = json(500, { error: 'Something went wrong here.' })
    }
  }
  const [status, type, body] = answer
  count(request.method, route, status, Number(process.hrtime.bigint() - began) / 1e9)
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body), 'X-Content-Type-Options': 'nosniff' })
  response.end(request.method === 'HEAD' ? undefined : body)
})
// Longer than the proxy keeps an idle connection.
server.keepAliveTimeout = 75_000
server.listen(8080, () => console.log('listening on 8080'))

process.on('SIGTERM', () => {
  console.log('ending: requests under way are answered first')
  server.close(async () => {
    await pool.end()
    process.exit(0)
  })
  server.closeIdleConnections()
})
