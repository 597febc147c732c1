const script = `
const form = document.getElementById('entry')
form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const body = JSON.stringify(Object.fromEntries(new FormData(form)))
  const answer = await fetch('/api/entries', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
  if (answer.ok) location.reload()
  else form.querySelector('output').textContent = (await answer.json()).error
})
`
const style = 'body { font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 2rem auto } label { display: block }'
const maintenance = '<!doctype html><html lang="en"><title>Guest book</title><h1>The guest book is closed for a moment</h1></html>'

export const files = {
  '/guestbook.js': ['text/javascript; charset=utf-8', script],
  '/style.css': ['text/css; charset=utf-8', style],
  '/maintenance.html': ['text/html; charset=utf-8', maintenance]
}
