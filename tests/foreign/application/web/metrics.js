// Counters of this process, in Prometheus's text format.
const ENDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const requests = new Map()
const durations = new Map()

export function count(method, route, status, seconds) {
  const request = `method="${method}",route="${route}",status="${status}"`
  requests.set(request, (requests.get(request) ?? 0) + 1)
  const kind = `method="${method}",route="${route}"`
  const found = durations.get(kind) ?? { buckets: ENDS.map(() => 0), sum: 0, count: 0 }
  ENDS.forEach((end, place) => { if (seconds <= end) found.buckets[place] += 1 })
  found.sum += seconds
  found.count += 1
  durations.set(kind, found)
}

export function render(waiting) {
  const lines = ['# TYPE http_requests_total counter']
  for (const [labels, value] of requests) lines.push(`http_requests_total{${labels}} ${value}`)
  lines.push('# TYPE http_request_duration_seconds histogram')
  for (const [labels, { buckets, sum, count }] of durations) {
    ENDS.forEach((end, place) => lines.push(`http_request_duration_seconds_bucket{${labels},le="${end}"} ${buckets[place]}`))
    lines.push(`http_request_duration_seconds_bucket{${labels},le="+Inf"} ${count}`)
    lines.push(`http_request_duration_seconds_sum{${labels}} ${sum}`, `http_request_duration_seconds_count{${labels}} ${count}`)
  }
  lines.push('# TYPE guestbook_entries_waiting gauge', `guestbook_entries_waiting ${waiting.entries}`)
  lines.push('# TYPE guestbook_oldest_waiting_seconds gauge', `guestbook_oldest_waiting_seconds ${waiting.seconds}`)
  return lines.join('\n') + '\n'
}
