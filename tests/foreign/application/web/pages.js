const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`)

export const page = (entries) => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Guest book</title><link rel="stylesheet" href="/style.css"></head>
<body>
<h1>Guest book</h1>
<form id="entry">
  <label>Name <input name="name" maxlength="80" required></label>
  <label>Message <textarea name="message" maxlength="2000" required></textarea></label>
  <button>Sign</button> <output></output>
</form>
<ol>
${entries.map((one) => `<li><b>${escape(one.name)}</b> ${escape(one.message)} <small>${one.words ?? '…'} words</small></li>`).join('\n')}
</ol>
<script src="/guestbook.js"></script>
</body>
</html>
`
