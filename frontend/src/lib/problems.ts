import { ApiError } from './http'

const sentences: Record<string, string> = {
  network: 'We could not reach Berth. Check your connection and try again.',
  timeout: 'Berth did not answer in time. Please try again.',
  credentials_invalid: 'The email or the password is not right.',
  cross_site: 'Berth did not accept this, since it did not come from a page of its own. Load the page again.',
  token_invalid: 'This link is no longer valid. It may be older than 24 hours or already used.',
}

/** What to tell a person about a failure: what happened and what they can do. */
export function sentenceFor(error: unknown): string {
  if (!(error instanceof ApiError)) return 'Something went wrong in this page. Load it again and try once more.'
  if (error.status === 429) return `Too many attempts. ${again(error)}`
  if ([502, 503, 504].includes(error.status)) return `Berth is busy just now. ${again(error)}`
  if (error.status === 401 && error.code !== 'credentials_invalid') return 'Please sign in again.'
  if (error.status >= 500) {
    const reference = error.requestId === undefined ? '' : ` If it stays, tell us this reference: ${error.requestId}.`
    return `Something went wrong on our side. Please try again.${reference}`
  }
  return sentences[error.code] ?? (error.detail || 'Berth did not accept this. Check what you entered and try again.')
}

function again({ retryAfterSeconds }: ApiError): string {
  if (retryAfterSeconds === undefined) return 'Please try again in a moment.'
  if (retryAfterSeconds === 1) return 'Please try again in a second.'
  if (retryAfterSeconds < 90) return `Please try again in ${String(retryAfterSeconds)} seconds.`
  return `Please try again in ${String(Math.ceil(retryAfterSeconds / 60))} minutes.`
}
