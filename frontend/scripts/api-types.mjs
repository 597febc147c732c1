// Writes (or, with --print, shows) src/lib/api-types.ts from openapi.json of the services that the front end calls, joined into one.
import { readFileSync, writeFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import openapiTS, { astToString } from 'openapi-typescript'

const services = ['auth_service', 'user_service']
const folder = new URL('../../services/', import.meta.url)
const joined = { openapi: '3.1.0', info: { title: 'Berth', version: '1' }, paths: {}, components: { schemas: {} } }

/** Two services may share a schema, such as the problem document, but not its name with another meaning. */
function add(target, additions, file) {
  for (const [name, value] of Object.entries(additions)) {
    if (name in target && !isDeepStrictEqual(target[name], value)) {
      throw new Error(`${file}: ${name} differs from the one in another service's document`)
    }
    target[name] = value
  }
}

for (const file of services.map((service) => `${service}/openapi.json`)) {
  const document = JSON.parse(readFileSync(new URL(file, folder), 'utf8'))
  const published = Object.entries(document.paths).filter(([path]) => path.startsWith('/api/'))
  add(joined.paths, Object.fromEntries(published), file)
  add(joined.components.schemas, document.components.schemas, file)
}
for (const path of Object.values(joined.paths)) {
  for (const operation of Object.values(path)) {
    delete operation.security
    delete operation.operationId
  }
}

// A field with a default may be left out of a request.
const types = astToString(await openapiTS(joined, { defaultNonNullable: false }))
const file = `// Written by \`npm run api-types\` from services/*/openapi.json. Do not edit.\n\n${types}`
if (process.argv.includes('--print')) process.stdout.write(file)
else writeFileSync(new URL('../src/lib/api-types.ts', import.meta.url), file)
