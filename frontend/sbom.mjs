// Writes a CycloneDX SBOM of the packages that the bundle is made of: nothing in it names them any more.
// usage: node sbom.mjs > frontend.cdx.json
import { readFileSync } from 'node:fs'

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'))
const components = Object.entries(lock.packages)
  .filter(([path, entry]) => path !== '' && !entry.dev)
  .map(([path, { version }]) => {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
    return { type: 'library', name, version, purl: `pkg:npm/${name.replace('@', '%40')}@${version}` }
  })
process.stdout.write(`${JSON.stringify({ bomFormat: 'CycloneDX', specVersion: '1.6', version: 1, components }, null, 1)}\n`)
