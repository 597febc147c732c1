// Applies the files in migrations/ that the database has not seen, in order, each in a transaction. They only add: the release that is
// live goes on with the new schema.
import { readdirSync, readFileSync } from 'node:fs'
import { connect } from './database.js'

const LOCK = 20817
const folder = new URL('migrations/', import.meta.url)
const pool = connect({ max: 1, query_timeout: 60000 })
const client = await pool.connect()
try {
  await client.query('SELECT pg_advisory_lock($1)', [LOCK])
  await client.query('CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())')
  const seen = new Set((await client.query('SELECT name FROM migrations')).rows.map((row) => row.name))
  for (const name of readdirSync(folder).filter((name) => name.endsWith('.sql') && !seen.has(name)).sort()) {
    await client.query('BEGIN')
    await client.query(readFileSync(new URL(name, folder), 'utf8'))
    await client.query('INSERT INTO migrations (name) VALUES ($1)', [name])
    await client.query('COMMIT')
    console.log(`applied ${name}`)
  }
} finally {
  client.release(true)
  await pool.end()
}
