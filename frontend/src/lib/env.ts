/** What the deployment told the page. Everything else the page needs is on its own origin. */
export const env = parse(document)

function parse(page: Document) {
  const release = page.querySelector<HTMLMetaElement>('meta[name="berth-release"]')?.content
  return { release: release ?? 'development' }
}
