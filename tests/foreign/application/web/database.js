// Where the entries are. The password is read for each connection, so that a changed one needs no restart.
import { readFileSync } from 'node:fs'
import pg from 'pg'

export function connect(options = {}) {
  return new pg.Pool({
    host: process.env.DATABASE_HOST ?? 'postgres',
    user: 'app',
    database: 'app',
    password: () => readFileSync('/run/secrets/postgres_password', 'utf8').trim(),
    max: 5,
    connectionTimeoutMillis: 3000,
    query_timeout: 5000,
    ...options
  })
}
