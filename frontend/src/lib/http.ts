import type { paths } from './api-types'

/** A slow phone network gets this long before the page says that Berth does not answer. */
const TIMEOUT_MS = 20_000

type Method = 'get' | 'post' | 'patch'
type PathWith<M extends Method> = { [P in keyof paths]: paths[P][M] extends object ? P : never }[keyof paths]
type BodyOf<Operation> = Operation extends { requestBody: { content: { 'application/json': infer Body } } }
  ? Body
  : undefined
type AnswerOf<Operation> = Operation extends { responses: infer Responses }
  ? JsonOf<Responses[Extract<keyof Responses, 200 | 201 | 202 | 204>]>
  : never
type JsonOf<Response> = Response extends { content: { 'application/json': infer Json } } ? Json : undefined

export type { Method, PathWith }
export type Body<M extends Method, P extends PathWith<M>> = BodyOf<paths[P][M]>
export type Answer<M extends Method, P extends PathWith<M>> = AnswerOf<paths[P][M]>

/** An answer that is not the wanted one, or none at all (status 0). */
export class ApiError extends Error {
  override name = 'ApiError'

  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail = '',
    readonly fields: Record<string, string> = {},
    readonly retryAfterSeconds?: number,
    readonly requestId?: string,
  ) {
    super(`${code} (${String(status)})`)
  }
}

/** Send one request and return its JSON. Throws only ApiError. */
export async function call<M extends Method, P extends PathWith<M>>(
  method: M,
  path: P,
  body?: Body<M, P>,
  accessToken?: string,
): Promise<Answer<M, P>> {
  const headers = new Headers({ Accept: 'application/json' })
  if (body !== undefined) headers.set('Content-Type', 'application/json')
  if (accessToken !== undefined) headers.set('Authorization', `Bearer ${accessToken}`)

  let response: Response
  try {
    response = await fetch(path, {
      method: method.toUpperCase(),
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
  } catch (cause) {
    throw new ApiError(0, cause instanceof DOMException && cause.name === 'TimeoutError' ? 'timeout' : 'network')
  }
  const json = await jsonOf(response)
  if (!response.ok) throw problem(response, json)
  return json as Answer<M, P>
}

/** The body as JSON, or undefined: a proxy's own error page is not JSON. */
async function jsonOf(response: Response): Promise<unknown> {
  try {
    return await response.json()
  } catch {
    return undefined
  }
}

function problem(response: Response, json: unknown): ApiError {
  const document = isRecord(json) ? json : {}
  return new ApiError(
    response.status,
    text(document.code) ?? 'unknown',
    text(document.detail),
    fieldErrors(document.errors),
    retryAfter(response.headers.get('Retry-After')),
    text(document.request_id) ?? response.headers.get('X-Request-ID') ?? undefined,
  )
}

/** Retry-After is a number of seconds or a date. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000
  return Number.isFinite(seconds) ? Math.max(1, Math.ceil(seconds)) : undefined
}

function fieldErrors(errors: unknown): Record<string, string> {
  const list: unknown[] = Array.isArray(errors) ? errors : []
  const pairs = list.filter(isRecord).map((error) => [text(error.field), text(error.message)])
  return Object.fromEntries(pairs.filter(([field, message]) => field && message)) as Record<string, string>
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
