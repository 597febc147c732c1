import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

test("the types are those of the services' checked-in OpenAPI documents", () => {
  const types = execFileSync(process.execPath, ['scripts/api-types.mjs', '--print'], { encoding: 'utf8' })
  expect(readFileSync('src/lib/api-types.ts', 'utf8')).toBe(types)
})
